"""A linear-chain conditional random field as a module, called as pytorch-crf's `CRF` is."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hf_latent.inference.checks import WrongAt, check_choice, check_count, describe, is_eager
from hf_latent.structures import ChainScores

Reduction = Literal["none", "sum", "mean", "token_mean"]


class TagConstraints(NamedTuple):
    """Which sequences of tags there are.

    Attributes:
        transitions: `(tags, tags)` in bool, whether a tag (row) may be followed by another (column).
        starts: `(tags,)`, whether a sequence may begin with it.
        ends: `(tags,)`, whether it may end with it.
    """

    transitions: Tensor
    starts: Tensor
    ends: Tensor

    def first_forbidden(self, tags: Tensor, lengths: Tensor) -> tuple[int, int, int | None, bool] | None:
        """The first place where `tags (batch, n)` are of no sequence that there is; negative tags may be any.

        Returns: row, word, the tag before (None at the start), and whether that is where it fails, or else the end; None where
        all is well.
        """
        n, words = tags.shape[1], torch.arange(tags.shape[1], device=tags.device)
        inside, known, own = words < lengths[:, None], tags >= 0, tags.clamp(min=0)
        pairs = self.transitions[own[:, :-1], own[:, 1:]] | ~(known[:, :-1] & known[:, 1:])
        before = torch.cat([self.starts[own[:, :1]] | ~known[:, :1], pairs], 1)
        at_end = self.ends[own] | ~known | (words != lengths[:, None] - 1)
        wrong = inside & ~(before & at_end)
        if not n or not wrong.any():
            return None
        row, word = wrong.nonzero()[0].tolist()
        return row, word, int(own[row, word - 1]) if word else None, not bool(before[row, word])


class ConditionalRandomField(nn.Module):
    """p(tags | emissions) with learned scores of transitions, starts and ends (Lafferty, McCallum and Pereira 2001).

    Interface, parameters and their names are those of pytorch-crf's `CRF`: `from hf_latent.layers import ConditionalRandomField
    as CRF` is all that changes, and its checkpoints load. Beyond it, a mask may have holes, which are left out as if their
    neighbours stood side by side, and a sentence may be empty; emissions may be of any floating dtype (sums are float64).

    Args:
        num_tags: how many tags there are.
        batch_first: whether emissions are `(batch, n, num_tags)`; otherwise `(n, batch, num_tags)`.
        constraints: which sequences there are; by default all. All operations leave out the others.
    """

    allowed_transitions: Tensor
    allowed_starts: Tensor
    allowed_ends: Tensor

    def __init__(self, num_tags: int, batch_first: bool = False, constraints: TagConstraints | None = None) -> None:
        super().__init__()
        check_count("num_tags", num_tags)
        self.num_tags, self.batch_first = num_tags, batch_first
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.constraints = constraints
        shapes = {"transitions": (num_tags, num_tags), "starts": (num_tags,), "ends": (num_tags,)}
        for name, shape in shapes.items():
            allowed = None if constraints is None else getattr(constraints, name)
            if constraints is not None and (
                not isinstance(allowed, Tensor) or allowed.dtype != torch.bool or tuple(allowed.shape) != shape
            ):
                raise ValueError(f"`constraints.{name}` must be a bool tensor of shape {shape}, got {describe(allowed)}.")
            # Of the code, not of a checkpoint.
            self.register_buffer(f"allowed_{name}", None if allowed is None else allowed.clone(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all scores from [-0.1, 0.1]; what is allowed is as the constraints say.

        (Where models are made without memory and filled from files, as in transformers, buffers have to be filled as well.)
        """
        for scores in self.parameters():
            nn.init.uniform_(scores, -0.1, 0.1)
        if self.constraints is not None:
            for name, own in self.constraints._asdict().items():
                getattr(self, f"allowed_{name}").copy_(own)

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: Reduction = "sum") -> Tensor:
        """The log-likelihood of the tags: its negative is the loss.

        Args:
            emissions: `(n, batch, num_tags)`, or `(batch, n, num_tags)` with `batch_first`.
            tags: `(n, batch)` or `(batch, n)`; what they are outside the mask (such as -100) does not matter.
            mask: the same shape, what of the sentences counts; by default all.
            reduction: `"none"` for `(batch,)`; `"sum"`, `"mean"` over the sentences, or `"token_mean"` over the words.

        Raises:
            ValueError: shapes that do not fit; tags out of range or that the constraints do not allow, with sentence and word.
        """
        check_choice("reduction", reduction, ("none", "sum", "mean", "token_mean"))
        if not isinstance(tags, Tensor) or tags.shape != emissions.shape[:2]:
            raise ValueError(f"`tags` must have the first dimensions of `emissions`, {tuple(emissions.shape[:2])}, "
                             f"got {describe(tags)}.")  # fmt: skip
        chain, order = self.chain(emissions, mask)
        tags = self._rows_first(tags)
        tags = tags if order is None else tags.gather(1, order)
        if is_eager() and self.constraints is not None:
            self._check_allowed(chain, tags, order)
        values = chain.log_prob(tags)
        if reduction == "none":
            return values
        if reduction == "sum":
            return values.sum()
        if reduction == "mean":
            return values.mean()
        return values.sum() / (tags.numel() if chain.lengths is None else chain.lengths.sum())

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """The tags of the best sequence of each sentence, a list as long as the mask has words."""
        chain, _ = self.chain(emissions, mask)
        return [[tag for tag in row if tag >= 0] for row in chain.argmax().tolist()]

    def argmax(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same as a tensor in the shape of the mask, -1 outside it: for compiled graphs."""
        chain, order = self.chain(emissions, mask)
        return self._rows_first(_placed(chain.argmax(), order))

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The probability of each tag of each word, in the shape of `emissions`, 0 outside the mask; differentiable."""
        chain, order = self.chain(emissions, mask)
        found = chain.marginals()
        if order is not None:
            found = torch.zeros_like(found).scatter(1, order[:, :, None].expand_as(found), found)
        return self._rows_first(found).to(emissions.dtype)

    def log_partition(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """log Σ exp of the scores of all sequences, `(batch,)`; differentiable."""
        return self.chain(emissions, mask)[0].log_partition()

    def k_best(self, emissions: Tensor, k: int, mask: Tensor | None = None) -> list[list[tuple[list[int], float]]]:
        """For each sentence, up to k sequences of tags with their scores, best first.

        A score less the sentence's `log_partition` is a log-probability.
        """
        chain, _ = self.chain(emissions, mask)
        tags, scores = chain.top_k(k)
        return [
            [([tag for tag in own if tag >= 0], score) for own, score in zip(*row, strict=True) if score > -torch.inf]
            for row in zip(tags.tolist(), scores.tolist(), strict=True)
        ]

    def sample(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Tags drawn from the distribution, `(num_samples, n, batch)` or `(num_samples, batch, n)`, -1 outside the mask."""
        chain, order = self.chain(emissions, mask)
        found = chain.sample(num_samples, generator)
        found = _placed(found, None if order is None else order.expand_as(found))
        return found if self.batch_first else found.transpose(1, 2)

    def _rows_first(self, values: Tensor) -> Tensor:
        """From the caller's layout to sentences first, or back."""
        return values if self.batch_first else values.transpose(0, 1)

    def chain(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[ChainScores, Tensor | None]:
        """The distribution over tags of the words in the mask, and where each of these was, `(batch, n)`, if there is one."""
        if not isinstance(emissions, Tensor) or emissions.dim() != 3 or emissions.shape[2] != self.num_tags:
            shape = "(batch, n, num_tags)" if self.batch_first else "(n, batch, num_tags)"
            raise ValueError(f"`emissions` must have shape {shape} with num_tags = {self.num_tags}, got {describe(emissions)}.")
        order, lengths = None, None
        rows = self._rows_first(emissions)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.shape != emissions.shape[:2] or mask.is_floating_point():
                raise ValueError(
                    "`mask` must be bool (or integers) with the first dimensions of `emissions`, "
                    f"{tuple(emissions.shape[:2])}, got {describe(mask)}."
                )
            inside = self._rows_first(mask) != 0
            order, lengths = inside.int().argsort(dim=1, descending=True, stable=True), inside.sum(1)
            rows = rows.gather(1, order[:, :, None].expand(rows.shape))
        learned: list[Tensor] = [self.transitions, self.start_transitions, self.end_transitions]
        if self.constraints is not None:
            allowed = self.allowed_transitions, self.allowed_starts, self.allowed_ends
            learned = [scores.masked_fill(~own, -torch.inf) for scores, own in zip(learned, allowed, strict=True)]
        transitions, start, end = learned
        return ChainScores(rows, transitions, lengths, start, end), order

    def _check_allowed(self, chain: ChainScores, tags: Tensor, order: Tensor | None) -> None:
        """Raises where the constraints forbid a tag beside the one before it, or at the end."""
        batch, n = tags.shape
        lengths = torch.full((batch,), n, device=tags.device) if chain.lengths is None else chain.lengths
        tags = tags.where(tags < self.num_tags, -1)  # others are an error of their own
        constraints = TagConstraints(self.allowed_transitions, self.allowed_starts, self.allowed_ends)
        found = constraints.first_forbidden(tags, lengths)
        if found is not None:
            row, word, before, is_before = found
            where = "at the end" if not is_before else "at the start" if before is None else f"after {before}"
            place = (row, word if order is None else int(order[row, word]))
            raise WrongAt(
                f"`{{name}}` must be sequences that the constraints allow, but {{name}}{{place}} (sentence, word) is "
                f"{int(tags[row, word])}, which may not be {where}. Mend the labels, or allow it.",
                "tags",
                place,
            )

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}, batch_first={self.batch_first}"


def _placed(tags: Tensor, order: Tensor | None) -> Tensor:
    """Tags `(..., n)` of the words in front, each at its own place."""
    return tags if order is None else torch.full_like(tags, -1).scatter(-1, order, tags)
