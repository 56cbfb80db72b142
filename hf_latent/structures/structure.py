"""The contract of a structure: what a latent choice is, and what can be computed about it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hf_latent.inference import active_set
from hf_latent.inference.checks import (
    Checked,
    at_least_float32,
    check_count,
    check_floating,
    check_lengths,
    check_start,
    checked_input,
    checked_start,
    describe,
    in_reach,
    is_eager,
    raise_no_structure,
    seen_as,
)
from hf_latent.inference.guards import guarded_argmax, guarded_log_partition, unguarded


class TopK(NamedTuple):
    """What `Structure.top_k` returns.

    Attributes:
        structures: `(batch, k, *event)`, best first; 0 where there are fewer than k.
        scores: `(batch, k)`, s·z of each, in float32 or better; -inf where there are fewer than k.
    """

    structures: Tensor
    scores: Tensor


class Structure(ABC):
    """A finite set Z of 0/1 tensors, and the polytope M = conv(Z).

    A structure is a frozen dataclass: no tensors, no state; its fields hold for every operation alike. Scores come in as
    an argument, with a leading batch dimension and the `event_dims` dimensions of one choice behind it. `lengths (batch,)`
    says how much of each row counts; all else is ignored on input and 0 on output. A score of -inf, or one that lies 1e12 and
    more below the best of its row (`finfo.min`, say), forbids the part: Z is without the structures that have it, in every
    operation. A row with no structure left is an error.

    Writing one of your own takes `argmax`, `log_partition` and `enumerate`, and `positions` where lengths do not count along
    dimension 1 of the scores; all other operations follow from them (override those for which you know something faster). Every
    estimator then works on it. `hf_latent.testing.check_structure` tells whether it is right. Around your `argmax` and
    `log_partition` is put what all need: sums in float32 at least, and an error where a row has no structure.

    Attributes:
        event_dims: the number of dimensions of one choice.
        group_dims: of these, how many of the last hold the parts of one group, whose scores can all be moved by a constant
            without a change of the choice (the heads of a word); by default all. With 0, each part is a group by itself.
    """

    event_dims: ClassVar[int] = 1
    group_dims: ClassVar[int | None] = None

    def __init_subclass__(cls, guarded: bool = True, **options: Any) -> None:
        """`guarded=False` is for those whose operations see to all of this themselves."""
        super().__init_subclass__(**options)
        for name, guard in (("argmax", guarded_argmax), ("log_partition", guarded_log_partition)):
            if guarded and name in vars(cls):
                setattr(cls, name, guard(vars(cls)[name]))

    @abstractmethod
    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """MAP(s) = argmax over z in Z of s·z (paper, section 3); same shape as `scores`, no gradient."""

    @abstractmethod
    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log Σ_z exp(s·z), `(batch,)`, differentiable (twice, for the default `marginals` to be so once)."""

    @abstractmethod
    def enumerate(self, size: int) -> Tensor:
        """All of Z for one row of length `size`: `(count, *event)`, in float32. For tests and small structures."""

    def check(self, scores: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`scores`, with -inf for all that is forbidden, and `lengths`, or an error that names what is wrong with them."""
        return self.checked(scores, lengths)[:2]

    def checked(self, scores: Tensor, lengths: Tensor | None = None) -> Checked:
        """The same, with the masks: whoever is called first calls this, once, and hands it on."""
        return checked_input(self, *self.check_shapes(scores, lengths))

    def check_shapes(self, scores: object, lengths: object = None) -> tuple[Tensor, Tensor | None]:
        """`scores` and int64 `lengths` (or None) of right types and shapes; their values are not looked at."""
        scores = check_floating(scores, f"(batch, ...) with {self.event_dims + 1} dimensions", self.event_dims + 1)
        return scores, None if lengths is None else check_lengths(lengths, scores.shape[0], scores.device)

    def longest(self, scores: Tensor) -> int:
        """The largest length that `scores` have room for; by default, the size of their dimension 1."""
        return scores.shape[1]

    def positions(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True where an entry of `scores` counts; by default, where dimension 1 is below `lengths`."""
        valid = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
        return valid.view(*valid.shape, *[1] * (scores.dim() - 2)).expand(scores.shape)

    def mask(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """True where a part can be: an entry of `scores` that counts and is not forbidden."""
        return in_reach(scores, self.positions(scores, lengths))

    def num_parts(self, lengths: Tensor) -> Tensor:
        """How many parts a structure of each of the `lengths` (of any shape) has; where that differs, the largest number.

        The default enumerates the structures of each length: override it.
        """
        counts = {size: int(self.enumerate(size).flatten(1).sum(1).max()) for size in lengths.unique().tolist()}
        return torch.tensor([counts[size] for size in lengths.flatten().tolist()], device=lengths.device).view(lengths.shape)

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Marg(s) = E[z] under p(z) ∝ exp(s·z) (Eq. 2): the gradient of `log_partition`."""
        scores, _ = self.check_shapes(scores, lengths)
        differentiable = scores.requires_grad and torch.is_grad_enabled()
        # Inference mode has no gradients, but this one is a means, not an end.
        is_inference = is_eager() and torch.is_inference_mode_enabled()
        with torch.inference_mode(False) if is_inference else nullcontext(), torch.enable_grad():
            exact = at_least_float32(scores.dtype)  # in which a sum of exponentials has room
            tracked = scores.to(exact) if differentiable else scores.detach().to(exact, copy=True).requires_grad_()
            total = self.log_partition(tracked, lengths).sum()
            if not total.requires_grad:  # nothing that counts, such as chains of one word
                return torch.zeros_like(scores)
            (gradient,) = torch.autograd.grad(total, tracked, create_graph=differentiable)
        if is_eager() and not gradient.isfinite().all():
            raise ValueError(
                f"The gradient of `log_partition` of {self!r} is not finite. Where scores are -inf, some functions have none: "
                "use `torch.logsumexp`, which has, in place of `torch.logaddexp` and of `log` of a sum, or fill in a large "
                "negative number for what `mask` leaves out."
            )
        return _bounded(gradient, below=0.0, above=1.0).to(scores.dtype)

    def _log_partition(self, checked: Checked) -> Tensor:
        """`log_partition` of what has been checked; overridden where that saves something."""
        return self.log_partition(checked.scores, checked.lengths)

    def _marginals(self, checked: Checked) -> Tensor:
        """`marginals` of what has been checked; overridden where that saves something."""
        return self.marginals(checked.scores, checked.lengths)

    def sparsemap(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = active_set.MAX_ITER,
        start: Tensor | None = None,
    ) -> Tensor:
        """SparseMAP(s), the Euclidean projection of s onto M (Eq. 4; Niculae et al. 2018). Differentiable once.

        By the active-set method, with one `argmax` an iteration; warns where it did not converge.

        Args:
            scores, lengths: as everywhere.
            tol: the duality gap to stop at, relative to the squared distance from the scores to the first vertex where
                that is below 1; by default 1e-10 for float64 and 1e-6 for all else.
            max_iter: where to stop in any case.
            start: structures to begin at, of the shape of `scores`, if some are known that lie near the solution; by default
                the best ones. Saves time, and changes the result by no more than `tol` allows.
        """
        exact, allowed, oracle, tol, first = self._projection(scores, lengths, tol, max_iter, start)
        return active_set.sparsemap(exact, allowed, oracle, tol, max_iter, first).view(scores.shape).to(scores.dtype)

    def sparsemap_solution(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        tol: float | None = None,
        max_iter: int = active_set.MAX_ITER,
        start: Tensor | None = None,
    ) -> active_set.SparseMAPSolution:
        """The projection, the few structures that it is made of and their weights, and whether it converged. No gradient.

        The arguments are those of `sparsemap`.
        """
        exact, allowed, oracle, tol, first = self._projection(scores.detach(), lengths, tol, max_iter, start)
        found = active_set.project(exact, allowed, oracle, tol, max_iter, first)
        if not found.converged.all():
            active_set.warn_of_gap(max_iter)
        return active_set.SparseMAPSolution(
            found.point.view(scores.shape).clamp(0, 1).to(scores.dtype),
            found.vertices.view(*found.weights.shape, *scores.shape[1:]).to(scores.dtype),
            found.weights.to(scores.dtype),
            found.gap,
            found.converged,
        )

    def project_from(self, targets: Tensor, start: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of `targets` onto M, begun at the structures `start`; no gradient. The inner step of SPIGOT.

        The default is `sparsemap`, to 0.15 % of the step.
        """
        return self.sparsemap(targets.detach(), lengths, active_set.STEP_TOLERANCE, start=start)

    def project_from_marginals(self, targets: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projection of `targets`, which lie near Marg(scores), onto M; no gradient. The inner step of SPIGOT-CE.

        The default is `sparsemap`. Such points are mostly inside M, though, where a projection is made of very many
        structures: override it if you know how to do with less.
        """
        return self.project_from(targets, self.argmax(scores, lengths), lengths)

    def _check_start(self, start: object, checked: Checked) -> Tensor | None:
        """`start` in float64, `(batch, size)`, if it is one structure in each row."""
        if start is None:
            return None
        start = check_start(start, checked.scores).detach()
        return checked_start(start, checked.allowed, lambda own: self.argmax(own, checked.lengths))

    def _projection(
        self, scores: Tensor, lengths: Tensor | None, tol: float | None, max_iter: int, start: Tensor | None
    ) -> tuple[Tensor, Tensor, active_set.Oracle, float, Tensor | None]:
        checked = self.checked(scores, lengths)
        first = self._check_start(start, checked)

        def oracle(flat: Tensor, rows: Tensor) -> Tensor:
            return unguarded(type(self).argmax)(self, flat.view(len(flat), *scores.shape[1:]), checked.lengths[rows]).flatten(1)

        tol = active_set.check_stopping(tol, max_iter, scores)
        return checked.scores.double().flatten(1), checked.allowed.flatten(1), oracle, tol, first

    def sample(
        self,
        scores: Tensor,
        lengths: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Structures drawn from p(z) ∝ exp(s·z), `(num_samples, batch, *event)`; no gradient.

        The default enumerates all of them. With a seeded `generator`, draws repeat exactly.
        """
        check_count("num_samples", num_samples)
        result = scores.detach().new_zeros(num_samples, *scores.shape)
        for row, vertices, values in self.enumerate_rows(scores, lengths):
            chances = values.softmax(0).to(generator.device if generator is not None else "cpu")
            drawn = torch.multinomial(chances, num_samples, replacement=True, generator=generator)
            result[:, row] = vertices[drawn.to(vertices.device)]
        return result

    def top_k(self, scores: Tensor, lengths: Tensor | None = None, k: int = 1) -> TopK:
        """The k best structures of each row, best first; no gradient. The default enumerates all of them."""
        check_count("k", k)
        result = TopK(
            scores.detach().new_zeros(scores.shape[0], k, *scores.shape[1:]),
            scores.detach().new_full((scores.shape[0], k), -torch.inf, dtype=at_least_float32(scores.dtype)),
        )
        for row, vertices, values in self.enumerate_rows(scores, lengths):
            best = values.topk(min(k, len(values)))
            result.structures[row, : len(best.indices)] = vertices[best.indices]
            result.scores[row, : len(best.indices)] = best.values.to(result.scores.dtype)
        return result

    def enumerate_rows(self, scores: Tensor, lengths: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each row: its number, all of Z in the shape of `scores[row]`, and the score of each."""
        scores, lengths, _, allowed = self.checked(scores.detach(), lengths)
        exact = scores.double().masked_fill(~allowed, 0.0)
        for row, length in enumerate(lengths.tolist()):
            own = self.enumerate(length)
            vertices = scores.new_zeros(len(own), *scores.shape[1:])
            vertices[(slice(None), *(slice(0, size) for size in own.shape[1:]))] = own.to(scores)
            vertices = vertices[~((vertices != 0) & ~allowed[row]).flatten(1).any(1)]
            if not len(vertices):
                raise_no_structure(row)
            yield row, vertices, vertices.double().flatten(1) @ exact[row].flatten()

    def entropy(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """-Σ_z p(z) log p(z) = log_partition - s·marginals, `(batch,)`, in nats. Differentiable."""
        checked = self.checked(scores, lengths).double()
        value = self._log_partition(checked) - self._score(self._marginals(checked), checked)
        return _bounded(value, below=0.0).to(at_least_float32(scores.dtype))

    def cross_entropy(self, scores: Tensor, other: Tensor, lengths: Tensor | None = None) -> Tensor:
        """-Σ_z p(z) log q(z), `(batch,)`, in nats, for p of `scores` and q of the scores `other`. Differentiable in both.

        inf where q forbids what p does not, as with `kl_divergence`.
        """
        ours, theirs = self._both(scores, other, lengths)
        with seen_as(_other):
            value = self._log_partition(theirs)
        value = value - self._score(self._marginals(ours), theirs)
        return _bounded(value, below=0.0).to(at_least_float32(scores.dtype))

    def kl_divergence(self, scores: Tensor, other: Tensor, lengths: Tensor | None = None) -> Tensor:
        """KL(p‖q) = Σ_z p(z) log(p(z) / q(z)), `(batch,)`, in nats, for p of `scores`, q of `other`. Differentiable in both."""
        ours, theirs = self._both(scores, other, lengths)
        marginals = self._marginals(ours)
        with seen_as(_other):
            value = self._log_partition(theirs)
        value = value - self._log_partition(ours) + self._score(marginals, ours) - self._score(marginals, theirs)
        return _bounded(value, below=0.0).to(at_least_float32(scores.dtype))

    def _both(self, scores: Tensor, other: Tensor, lengths: Tensor | None) -> tuple[Checked, Checked]:
        checked = self.checked(scores, lengths).double()
        if not isinstance(other, Tensor) or other.shape != scores.shape:
            raise ValueError(f"`other` must have the shape of `scores`, {tuple(scores.shape)}, got {describe(other)}.")
        try:
            with seen_as(_other):
                return checked, self.checked(other, lengths).double()
        except TypeError as error:
            raise TypeError(str(error).replace("`scores`", "`other`")) from None

    def log_prob(self, z: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(z) = s·z - log_partition, `(batch,)`, for `z` in Z of the shape of `scores`. Differentiable in `scores`.

        For several of each row, `z (count, batch, *event)`, such as samples: `(count, batch)`, from one log-partition.
        -inf where z has a forbidden part. That it is a structure at all is not checked; for a point inside M this is the
        expectation of log p under it.
        """
        checked = self.checked(scores, lengths).double()
        value = self._score(z, checked) - self._log_partition(checked)
        return _bounded(value, above=0.0).to(at_least_float32(scores.dtype))

    def score(self, z: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """s·z, `(batch,)`, over what counts of each row; -inf where z has some of a forbidden part. Differentiable.

        For several of each row, `z (count, batch, *event)`: `(count, batch)`.
        """
        return self._score(z, self.checked(scores, lengths))

    def _score(self, z: Tensor, checked: Checked) -> Tensor:
        scores, allowed = checked.scores, checked.allowed
        if scores.shape not in (z.shape, z.shape[1:]):
            raise ValueError(
                f"`z` must have the shape of `scores`, {tuple(scores.shape)}, or one dimension more in front, got "
                f"{tuple(z.shape)}."
            )
        exact = at_least_float32(scores.dtype)
        product = scores.to(exact).masked_fill(~allowed, 0.0) * z.to(exact).masked_fill(~allowed, 0.0)
        value = product.sum(tuple(range(-self.event_dims, 0)))
        if allowed is checked.positions:
            return value
        forbidden = (z.detach() > 0) & checked.positions & ~allowed
        return value.masked_fill(forbidden.flatten(-self.event_dims).any(-1), -torch.inf)


def _other(name: str, place: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """How an error calls the scores of the other distribution."""
    return "other" if name == "scores" else name, place


def _bounded(value: Tensor, below: float | None = None, above: float | None = None) -> Tensor:
    """`value` without the rounding that carried it past its bound; the gradient passes unchanged."""
    return torch.where(value.isfinite(), value + (value.clamp(below, above) - value).detach(), value)
