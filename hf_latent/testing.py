"""Is a structure of your own right? All its operations, held against the structures that it enumerates.

>>> from hf_latent.testing import check_structure
>>> check_structure(Subset(), sizes=[1, 2, 4])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_latent.structures import Structure


def check_structure(structure: Structure, sizes: Sequence[int] = (1, 2, 3, 4), seed: int = 0) -> None:
    """Raises unless the operations of `structure` do what the contract (`Structure`) says.

    Checked are: what is enumerated; each operation against the enumeration, in float64 and float32; exact gradients;
    that neither padding nor the rest of the batch, nor what lies beyond the lengths, changes anything; that what a score of
    -inf (or a very low one) forbids is left out everywhere; and that NaN and rows without a structure are errors.

    Args:
        structure: what to check. (Of `Independent`, check what each choice is made from.)
        sizes: lengths for which it has structures, few and small: all structures of the largest are gone through.
        seed: of the random scores.

    Raises:
        AssertionError: something is not right. The message lists all that was found.
    """
    found: list[str] = []
    problems = _problems(structure, 3 * list(sizes), seed, found)
    if not found:
        for name, check in CHECKS.items():
            for what, problem in problems.items():
                try:
                    message = check(problem)
                except Exception as error:
                    message = f"raises {type(error).__name__}: {error}"
                if message:
                    found.append(f"`{name}`, {what}: {message}")
                    break  # of one kind of scores: the others would say the same
    if found:
        raise AssertionError(f"{structure!r} is not right:\n" + "\n".join(f"- {message}" for message in found))


@dataclass(frozen=True)
class Problem:
    """Scores, and all that can be chosen by them.

    Attributes:
        scores: `(batch, *event)` as given to the structure; garbage beyond the lengths, -inf where `forbidden`.
        clean: the same scores in float64, 0 in those places.
        lengths: `(batch,)`.
        vertices: of each row, the structures that are left, `(count, *event)` in float64.
        can_be: `(batch, *event)`, True where some structure has a part, forbidden or not.
        forbidden: `(batch, *event)`.
    """

    structure: Structure
    scores: Tensor
    clean: Tensor
    lengths: Tensor
    vertices: list[Tensor]
    can_be: Tensor
    forbidden: Tensor

    @property
    def left(self) -> Tensor:
        """True where a part can be chosen, and is not forbidden."""
        return self.can_be & ~self.forbidden

    def leaf(self) -> tuple[Tensor, Tensor]:
        """Scores that want a gradient, and what the structure is given, which depends on them."""
        leaf = self.scores.clone().masked_fill(~self.left, 0.0).requires_grad_()
        return leaf, torch.where(self.left, leaf, self.scores)

    def rows(self) -> list[tuple[Tensor, Tensor]]:
        """Of each row, what can be chosen and its log-probability, with a gradient to `clean`."""
        logs = [(own * self.clean[row]).flatten(1).sum(1).log_softmax(0) for row, own in enumerate(self.vertices)]
        return list(zip(self.vertices, logs, strict=True))

    def differs(self, found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> str | None:
        """What is wrong with a result, if anything."""
        if found.shape != expected.shape:
            return f"has shape {tuple(found.shape)}, and should have {tuple(expected.shape)}."
        tolerance = tolerance if self.scores.dtype == torch.float64 else 1e-3
        wrong = ~torch.isclose(found.double(), expected.double(), rtol=tolerance, atol=tolerance)
        if not wrong.any():
            return None
        place = tuple(wrong.nonzero()[0].tolist())
        return f"is {found[place].item():.6g} at {list(place)}, and should be {expected[place].item():.6g}."


def _problems(structure: Structure, sizes: list[int], seed: int, found: list[str]) -> dict[str, Problem]:
    """Scores to check with, by their description; what is wrong with the enumeration goes into `found`."""
    every = {}
    for size in sorted(set(sizes)):
        own = structure.enumerate(size)
        if not len(own):
            found.append(f"`enumerate`: there is no structure of size {size}; leave it out of `sizes`.")
        elif own.dim() != structure.event_dims + 1:
            found.append(f"`enumerate`: must have {structure.event_dims + 1} dimensions (`event_dims` + 1), got {own.dim()}.")
        elif not ((own == 0) | (own == 1)).all():
            found.append("`enumerate`: structures must be made of 0 and 1.")
        elif _distinct(own) != len(own):
            found.append(f"`enumerate`: a structure of size {size} is there twice.")
        every[size] = own.double()
    if found:
        return {}
    shape = every[max(sizes)].shape[1:]
    padded = {}
    for size, own in every.items():
        padded[size] = own.new_zeros(len(own), *shape)
        padded[size][(slice(None), *(slice(0, extent) for extent in own.shape[1:]))] = own
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(len(sizes), *shape, generator=generator, dtype=torch.float64)
    lengths = torch.tensor(sizes)
    can_be = torch.stack([padded[size].bool().any(0) for size in sizes])
    if not (structure.positions(scores, lengths) | ~can_be).all():
        found.append("`positions`: must be True wherever a structure has a part.")

    def problem(dtype: torch.dtype, share: float, low: float) -> Problem:
        forbidden = (torch.rand(scores.shape, generator=generator) < share) & can_be
        vertices = [padded[size] for size in sizes]
        for row, own in enumerate(vertices):
            left = ~(own.bool() & forbidden[row]).flatten(1).any(1)
            if left.any() and (can_be[row] & ~forbidden[row]).any():
                vertices[row] = own[left]
            else:  # a low score is one beside others
                forbidden[row] = False
        given = scores.masked_fill(~structure.positions(scores, lengths), torch.nan).masked_fill(forbidden, low)
        clean = scores.masked_fill(~can_be | forbidden, 0.0).to(dtype).double()
        return Problem(structure, given.to(dtype), clean, lengths, vertices, can_be, forbidden)

    return {
        "in float64": problem(torch.float64, 0.0, 0.0),
        "in float32": problem(torch.float32, 0.0, 0.0),
        "with scores of -inf": problem(torch.float64, 0.4, -torch.inf),
        "with scores of `torch.finfo(torch.float32).min`": problem(torch.float32, 0.4, torch.finfo(torch.float32).min),
    }


def _check_argmax(problem: Problem) -> str | None:
    best = problem.structure.argmax(problem.scores, problem.lengths)
    if best.dtype != problem.scores.dtype:
        return f"must have the dtype of the scores, {problem.scores.dtype}, got {best.dtype}."
    for row, own in enumerate(problem.vertices):
        if not (own == best[row].double()).flatten(1).all(1).any():
            return f"is none of the structures (or a forbidden one) in row {row} (length {problem.lengths[row].item()})."
    expected = torch.stack([(own * problem.clean[row]).flatten(1).sum(1).max() for row, own in enumerate(problem.vertices)])
    message = problem.differs((best.double() * problem.clean).flatten(1).sum(1), expected)
    return message and f"is not the best structure: its score {message}"


def _check_log_partition(problem: Problem) -> str | None:
    leaf, given = problem.leaf()
    value = problem.structure.log_partition(given, problem.lengths)
    expected = [(own * problem.clean[row]).flatten(1).sum(1).logsumexp(0) for row, own in enumerate(problem.vertices)]
    if message := problem.differs(value, torch.stack(expected)):
        return message
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    if not gradient.isfinite().all():
        return "its gradient is not finite. (Of scores of -inf, `torch.logsumexp` has one, `torch.logaddexp` has none.)"
    mean = torch.stack([torch.einsum("k,k...->...", logs.exp(), own) for own, logs in problem.rows()])
    message = problem.differs(gradient, mean)
    return message and f"its gradient, the marginals, {message}"


def _check_marginals(problem: Problem) -> str | None:
    leaf, given = problem.leaf()
    marginals = problem.structure.marginals(given, problem.lengths)
    clean = problem.clean.clone().requires_grad_()
    exact = []
    for row, own in enumerate(problem.vertices):
        chances = (own * clean[row]).flatten(1).sum(1).softmax(0)
        exact.append(torch.einsum("k,k...->...", chances, own))
    if message := problem.differs(marginals, torch.stack(exact)):
        return message
    if marginals[~problem.left].count_nonzero():
        return "must be exactly 0 where no part can be."
    direction = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((marginals * direction).sum(), leaf)
    (expected,) = torch.autograd.grad((torch.stack(exact) * direction).sum(), clean)
    message = problem.differs(gradient, expected.masked_fill(~problem.left, 0.0))
    return message and f"its gradient {message}"


def _check_sparsemap(problem: Problem) -> str | None:
    solution = problem.structure.sparsemap_solution(problem.scores, problem.lengths)
    point = solution.point.double()
    if point[~problem.left].count_nonzero():
        return "must be exactly 0 where no part can be."
    for row, own in enumerate(problem.vertices):
        rest = (problem.clean[row] - point[row]).masked_fill(~problem.left[row], 0.0)
        gap = ((own - point[row]) * rest).flatten(1).sum(1).max()  # of a projection: none improves on it
        if gap > 1e-3:
            return f"is not the projection in row {row}: a structure improves on it by {gap.item():.3g}."
    return None


def _check_entropy(problem: Problem) -> str | None:
    entropy = problem.structure.entropy(problem.scores, problem.lengths)
    return problem.differs(entropy, torch.stack([-(logs.exp() * logs).sum() for _, logs in problem.rows()]))


def _check_log_prob(problem: Problem) -> str | None:
    best = problem.structure.argmax(problem.scores, problem.lengths)
    value = problem.structure.log_prob(best, problem.scores, problem.lengths)
    return problem.differs(value, torch.stack([logs.max() for _, logs in problem.rows()]))


def _check_kl_divergence(problem: Problem) -> str | None:
    value = problem.structure.kl_divergence(problem.scores, problem.scores, problem.lengths)
    return problem.differs(value, torch.zeros(len(problem.vertices)), 1e-6)


def _check_sample(problem: Problem) -> str | None:
    draws = [problem.structure.sample(problem.scores, problem.lengths, 400, torch.Generator().manual_seed(2)) for _ in range(2)]
    if not torch.equal(*draws):
        return "must repeat exactly with a seeded `generator`."
    for row, (own, logs) in enumerate(problem.rows()):
        same = (own == draws[0][:, row, None].double()).flatten(2).all(2)
        if not same.any(1).all():
            return f"draws what is no structure (or a forbidden one) in row {row}."
        chances = logs.exp()
        # Five standard errors, and one draw.
        if ((same.double().mean(0) - chances).abs() > 5 * (chances * (1 - chances) / 400).sqrt() + 1 / 400).any():
            return f"does not draw by exp(score) in row {row}."
    return None


def _check_top_k(problem: Problem) -> str | None:
    k = max(len(own) for own in problem.vertices) + 1
    top = problem.structure.top_k(problem.scores, problem.lengths, k)
    for row, own in enumerate(problem.vertices):
        expected = (own * problem.clean[row]).flatten(1).sum(1).sort(descending=True).values
        if message := problem.differs(top.scores[row, : len(own)], expected):
            return f"row {row}: the score of each {message}"
        if not top.scores[row, len(own) :].isneginf().all():
            return f"row {row} has {len(own)} structures; the scores of what is more must be -inf."
        if _distinct(top.structures[row, : len(own)]) != len(own):
            return f"row {row}: a structure is there twice."
    return None


def _check_num_parts(problem: Problem) -> str | None:
    if problem.forbidden.any():
        return None
    counts = problem.structure.num_parts(problem.lengths)
    return problem.differs(counts, torch.stack([own.flatten(1).sum(1).max() for own in problem.vertices]))


def _check_the_batch(problem: Problem) -> str | None:
    given, before = problem.scores.clone(), problem.scores.clone()
    together = problem.structure.marginals(given, problem.lengths)
    if not torch.equal(given.nan_to_num(), before.nan_to_num()):
        return "the scores that are given must not be changed."
    for row, own in enumerate(problem.vertices):
        shape = problem.structure.enumerate(int(problem.lengths[row])).shape[1:]
        place = (slice(row, row + 1), *(slice(0, extent) for extent in shape))
        alone = problem.structure.marginals(problem.scores[place], problem.lengths[row : row + 1])
        if message := problem.differs(together[place], alone):
            return f"row {row} ({len(own)} structures) must be the same alone and without padding: its marginal {message}"
    return None


def _check_errors(problem: Problem) -> str | None:
    structure, parts = problem.structure, problem.left.flatten(1).any(1)
    if not parts.any():
        return None
    row = int(parts.nonzero()[0])
    first = (row, *problem.left[row].nonzero()[0].tolist())
    wrong = problem.scores.clone()
    wrong[first] = torch.nan
    nothing = problem.scores.masked_fill(problem.can_be, -torch.inf)
    hopeless = [row for row, own in enumerate(problem.vertices) if (own.flatten(1).sum(1) > 0).all()]
    for name in ("argmax", "log_partition", "marginals"):
        if not _raises(lambda name=name: getattr(structure, name)(wrong, problem.lengths)):  # type: ignore[misc]
            return f"`{name}` of scores with NaN must be a ValueError: begin with `self.check(scores, lengths)`."
    if hopeless and not _raises(lambda: structure.marginals(nothing, problem.lengths)):
        return f"row {hopeless[0]} has no structure where all is forbidden: then `log_partition` must be -inf."
    return None


def _distinct(structures: Tensor) -> int:
    return len(set(map(tuple, structures.flatten(1).tolist())))


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


CHECKS: dict[str, Callable[[Problem], str | None]] = {
    "argmax": _check_argmax,
    "log_partition": _check_log_partition,
    "marginals": _check_marginals,
    "sparsemap": _check_sparsemap,
    "entropy": _check_entropy,
    "log_prob": _check_log_prob,
    "kl_divergence": _check_kl_divergence,
    "sample": _check_sample,
    "top_k": _check_top_k,
    "num_parts": _check_num_parts,
    "lengths and batches": _check_the_batch,
    "errors": _check_errors,
}

__all__ = ["check_structure"]
