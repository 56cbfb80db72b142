"""`hf_latent.testing.check_structure`: right structures pass, and each fault is found and named."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hf_latent import Categorical, Structure
from hf_latent.testing import check_structure

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from custom_structure import Subset


@dataclass(frozen=True)
class Pair(Structure):
    """Exactly two of k items, written with care."""

    def argmax(self, scores, lengths=None):
        scores, lengths = self.check(scores.detach(), lengths)
        masked = scores.masked_fill(~self.mask(scores, lengths), -torch.inf)
        return torch.zeros_like(scores).scatter(1, masked.topk(2, dim=1).indices, 1.0)

    def log_partition(self, scores, lengths=None):
        scores, lengths = self.check(scores, lengths)
        masked = scores.masked_fill(~self.mask(scores, lengths), -torch.inf)
        pairs = masked[:, :, None] + masked[:, None, :]
        return pairs[:, torch.ones(scores.shape[1], scores.shape[1]).triu(1).bool()].logsumexp(1)

    def enumerate(self, size):
        return torch.stack([pair for pair in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * size) if pair.sum() == 2])


def test_right_structures_pass(tree):
    check_structure(tree, sizes=[0, 1, 2, 3])
    check_structure(tree, sizes=[4], seed=3)


def test_other_right_structures_pass():
    check_structure(Categorical(), sizes=[0, 1, 3, 5])
    check_structure(Pair(), sizes=[2, 3, 5])
    check_structure(Subset(), sizes=[0, 1, 2, 4])


class LogAddExp(Pair):
    def log_partition(self, scores, lengths=None):
        scores, lengths = self.check(scores, lengths)
        masked = scores.masked_fill(~self.mask(scores, lengths), -torch.inf)
        pairs = masked[:, :, None] + masked[:, None, :]
        terms = pairs[:, torch.ones(scores.shape[1], scores.shape[1]).triu(1).bool()]
        total = torch.full_like(terms[:, 0], -torch.inf)
        for place in range(terms.shape[1]):
            total = torch.logaddexp(total, terms[:, place])
        return total


class NoLengths(Pair):
    def argmax(self, scores, lengths=None):
        return torch.zeros_like(scores).scatter(1, scores.nan_to_num(0.0).topk(2, dim=1).indices, 1.0)


class NoMask(Pair):
    def log_partition(self, scores, lengths=None):
        scores, lengths = self.check(scores, lengths)
        masked = scores.clamp(min=-9).masked_fill(~self.positions(scores, lengths), -torch.inf)
        pairs = masked[:, :, None] + masked[:, None, :]
        return pairs[:, torch.ones(scores.shape[1], scores.shape[1]).triu(1).bool()].logsumexp(1)


class Worst(Pair):
    def argmax(self, scores, lengths=None):
        scores, lengths = self.check(scores.detach(), lengths)
        return super().argmax((-scores).masked_fill(scores.isneginf(), -torch.inf), lengths)


class WrongScale(Pair):
    def marginals(self, scores, lengths=None):
        return super().marginals(scores, lengths) * 1.01


class NoChecks(Pair):
    def log_partition(self, scores, lengths=None):
        return super().log_partition(scores.nan_to_num(-100.0, neginf=-torch.inf), lengths)


class Double(Pair):
    def enumerate(self, size):
        return torch.cat([super().enumerate(size)] * 2)


class Parts(Pair):
    def num_parts(self, lengths):
        return lengths


class AlwaysTheSame(Pair):
    def sample(self, scores, lengths=None, num_samples=1, generator=None):
        return self.argmax(scores, lengths).expand(num_samples, *scores.shape)


class Fails(Pair):
    def entropy(self, scores, lengths=None):
        raise IndexError("out of range")


class Changes(Pair):
    def marginals(self, scores, lengths=None):
        result = super().marginals(scores, lengths)
        if not scores.requires_grad:
            scores.add_(1.0)
        return result


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (LogAddExp(), r"`log_partition`, .*its gradient is not finite.*`torch.logaddexp` has none"),
        (NoLengths(), r"`argmax`, in float64: is none of the structures"),
        (NoMask(), r"`log_partition`, with scores of -inf: is .* and should be"),
        (Worst(), r"`argmax`, in float64: is not the best structure: its score is"),
        (WrongScale(), r"`marginals`, in float64: is .* and should be"),
        (NoChecks(), r"`errors`, in float64: `log_partition` of scores with NaN must be a ValueError"),
        (Double(), r"`enumerate`: a structure of size 2 is there twice"),
        (Parts(), r"`num_parts`, in float64: is 3 at \[1\], and should be 2"),
        (AlwaysTheSame(), r"`sample`, in float64: does not draw by exp\(score\)"),
        (Fails(), r"`entropy`, in float64: raises IndexError: out of range"),
        (Changes(), r"the scores that are given must not be changed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Structure) else "",
)
def test_each_fault_is_named(structure, message):
    with pytest.raises(AssertionError, match=rf"(?s)is not right:.*({message})"):
        check_structure(structure, sizes=[2, 3, 5])


def test_sizes_without_structures_are_named():
    class Never(Pair):
        def enumerate(self, size):
            return torch.zeros(0, size)

    with pytest.raises(AssertionError, match="there is no structure of size 2; leave it out of `sizes`"):
        check_structure(Never(), sizes=[2])


def test_gradients_that_are_not_finite_are_never_silent():
    with pytest.raises(ValueError, match=r"gradient of `log_partition` of .* is not finite.*`torch.logsumexp`"):
        LogAddExp().marginals(torch.tensor([[-torch.inf, 0.0, 0.0]]))
