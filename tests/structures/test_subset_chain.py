"""Subsets with scores of neighbours: the conformance suite, `Subset` where neighbours do not matter, stretches, errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent import Subset, SubsetChain
from hf_latent.inference.operators import reference_only
from hf_latent.structures import with_neighbours
from structures.conformance import StructureConformance


class SubsetChainConformance(StructureConformance):
    lengths = [6, 4, 3, 2, 0, 5]

    def event(self, longest):
        return longest, 2

    def is_structure(self, z, length):
        least, most = (int(own) for own in self.structure.bounds(torch.tensor([length])))
        chosen = z.sum(1)
        if not bool(((z == 0) | (z == 1)).all() and (chosen <= 1).all()) or not least <= int(chosen.sum()) <= most:
            return False
        before = torch.cat([torch.zeros(1), chosen[:-1]]) if length else chosen
        return torch.equal(z[:, 1], chosen * before)

    def count(self, length):
        least, most = (int(own) for own in self.structure.bounds(torch.tensor([length])))
        return sum(math.comb(length, number) for number in range(least, most + 1))


class TestTwo(SubsetChainConformance):
    structure = SubsetChain(2)


class TestOneToThree(SubsetChainConformance):
    structure = SubsetChain(1, 3)


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_neighbours_that_do_not_matter(n, one, other, seed):
    least, most = min(one, other, n), max(one, other)
    scores = torch.randn(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lengths = torch.tensor([n, max(least, n - 2)])
    plain, chain, both = Subset(least, most), SubsetChain(least, most), with_neighbours(scores, 0.0)
    torch.testing.assert_close(chain.log_partition(both, lengths), plain.log_partition(scores, lengths))
    torch.testing.assert_close(chain.marginals(both, lengths).sum(-1), plain.marginals(scores, lengths))
    assert torch.equal(chain.argmax(both, lengths).sum(-1), plain.argmax(scores, lengths))
    torch.testing.assert_close(chain.top_k(both, lengths, 4).scores, plain.top_k(scores, lengths, 4).scores)


def test_a_bonus_puts_words_together():
    """The more neighbours count, the fewer stretches there are; in the end, one."""
    scores = torch.randn(20, 12)
    stretches = []
    for bonus in (-5.0, 0.0, 1.0, 50.0):
        z = SubsetChain(5).argmax(with_neighbours(scores, bonus))
        assert (z.sum((1, 2)) == 5).all()
        stretches.append(z[..., 0].sum().item())
    assert stretches == sorted(stretches, reverse=True)
    assert stretches[-1] == 20
    windows = scores.unfold(1, 5, 1).sum(2)
    best = SubsetChain(5).argmax(with_neighbours(scores, 50.0)).sum(-1)
    assert torch.equal(best.argmax(1), windows.argmax(1))


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e9])
def test_long_rows_and_scores_far_apart(scale):
    """Kernels and reference agree; probabilities add up."""
    structure, lengths = SubsetChain(3, 40), torch.tensor([300, 40])
    scores = scale * torch.randn(2, 300, 2, dtype=torch.float64)
    marginals = structure.marginals(scores, lengths)
    assert ((marginals >= 0) & (marginals <= 1)).all()
    assert (marginals.sum((1, 2)) <= 40 + 1e-6).all()
    with reference_only():
        torch.testing.assert_close(structure.marginals(scores, lengths), marginals, rtol=0, atol=1e-6)
        torch.testing.assert_close(structure.log_partition(scores, lengths), structure.log_partition(scores, lengths))


def test_errors():
    with pytest.raises(ValueError, match=r"must have shape \(batch, n, 2\).*`with_neighbours` makes them"):
        SubsetChain(2).argmax(torch.randn(2, 4, 3))
    with pytest.raises(ValueError, match=r"`lengths` must be at least 3.*lengths\[1\] is 2"):
        SubsetChain(3).argmax(torch.randn(2, 4, 2), torch.tensor([4, 2]))
    scores = torch.randn(2, 4, 2)
    scores[1, 1:] = -torch.inf
    with pytest.raises(ValueError, match=r"scores\[1\]"):
        SubsetChain(2).marginals(scores)
