"""Subsets: the conformance suite, the projection beside one by bisection, large and extreme rows, errors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hf_latent import Subset
from hf_latent.inference.operators import reference_only
from hf_latent.structures.subset import selection
from hf_latent.structures.subset.cpu.kernels import LONGEST
from structures.conformance import StructureConformance


class SubsetConformance(StructureConformance):
    lengths = [7, 4, 3, 2, 0, 6]

    def event(self, longest):
        return (longest,)

    def is_structure(self, z, length):
        least, most = (int(own) for own in self.structure.bounds(torch.tensor([length])))
        return bool(((z == 0) | (z == 1)).all()) and least <= int(z.sum()) <= most

    def count(self, length):
        least, most = (int(own) for own in self.structure.bounds(torch.tensor([length])))
        return sum(math.comb(length, number) for number in range(least, most + 1))


class TestTwo(SubsetConformance):
    structure = Subset(2)


class TestOneToThree(SubsetConformance):
    structure = Subset(1, 3)


class TestShare(SubsetConformance):
    structure = Subset(0.2, 0.5, share=True)


def test_shares_are_rounded_up():
    lengths = torch.tensor([0, 1, 4, 5, 6, 10])
    least, most = Subset(0.2, share=True).bounds(lengths)
    assert least.tolist() == most.tolist() == [0, 1, 1, 1, 2, 2]
    for count in range(1, 60):  # also where a product of floats is a little above a whole number
        assert int(Subset(count / 60, share=True).bounds(torch.tensor([60]))[0]) == count


def by_bisection(scores: torch.Tensor, least: int, most: int) -> torch.Tensor:
    """min(max(s - τ, 0), 1), with the τ of a monotone sum halved until it is found."""
    free = scores.clamp(0, 1)
    if least <= free.sum() <= most:
        return free
    target = least if free.sum() < least else most
    low, high = scores.min() - 2, scores.max() + 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (scores - middle).clamp(0, 1).sum() > target else (low, middle)
    return (scores - low).clamp(0, 1)


@given(
    st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0, 1e6])
)
@settings(max_examples=150, deadline=None)
def test_the_projection_is_that_by_bisection(n, one, other, seed, scale):
    least, most = min(one, other, n), max(one, other)
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(1, n, dtype=torch.float64, generator=generator)
    scores = scores.round(decimals=1) if seed % 2 else scores  # with ties
    structure = Subset(least, most)
    found = structure.sparsemap_solution(scores)
    torch.testing.assert_close(found.point[0], by_bisection(scores[0], least, most), rtol=0, atol=1e-9 * max(scale, 1))
    mean = (found.weights[..., None] * found.structures).sum(1)
    torch.testing.assert_close(mean, found.point, rtol=0, atol=1e-8)
    sizes = found.structures[0][found.weights[0] > 0].sum(1)
    assert ((sizes >= least) & (sizes <= most)).all()


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e9])
@pytest.mark.parametrize("bounds", [(5, 5), (0, 40), (890, 900)])
@pytest.mark.parametrize("n", [900, 901])
def test_long_rows_and_scores_far_apart(scale, bounds, n):
    """By the kernels, and where rows are too long for them."""
    assert LONGEST == 900
    scores = scale * torch.randn(2, n, dtype=torch.float64)
    structure = Subset(*bounds)
    found, marginals = structure.log_partition(scores), structure.marginals(scores)
    with reference_only():
        torch.testing.assert_close(found, structure.log_partition(scores), rtol=1e-10, atol=1e-9)
    least, most = bounds
    assert ((marginals.sum(1) >= least - 1e-8) & (marginals.sum(1) <= most + 1e-8)).all()
    if scale == 1e9:
        assert torch.equal(marginals, structure.argmax(scores))
    drawn = structure.sample(scores, num_samples=3)
    assert ((drawn.sum(2) >= least) & (drawn.sum(2) <= most)).all()
    assert structure.log_prob(drawn, scores).isfinite().all()


def test_sums_as_large_as_they_come():
    """Of half of 900 items that are alike, and with as many behind them in or out: 2^900 is near what a number holds."""
    structure = Subset(450)
    for scores in (torch.zeros(1, 900, dtype=torch.float64), torch.tensor([[0.0] * 450 + [9e5] * 225 + [-9e5] * 225]).double()):
        scores.requires_grad_()
        found, marginals = structure.log_partition(scores), structure.marginals(scores)
        (curvature,) = torch.autograd.grad((marginals * torch.linspace(-1, 1, 900, dtype=torch.float64)).sum(), scores)
        with reference_only():
            torch.testing.assert_close(found, structure.log_partition(scores), rtol=1e-12, atol=1e-9)
            torch.testing.assert_close(marginals, structure.marginals(scores), rtol=0, atol=1e-10)
        assert curvature.isfinite().all()
        free = 900 if not scores.any() else 450
        torch.testing.assert_close(marginals[0, :free], torch.full((free,), 0.5).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("bounds", [(3, 3), (0, 5), (2, math.inf)])
def test_the_reference_says_the_same(bounds, scale):
    """Also of gradients, which nothing else asks it for."""
    structure, lengths = Subset(*bounds), torch.tensor([40, 7, 3])
    scores, direction = scale * torch.randn(3, 40, dtype=torch.float64), torch.randn(3, 40, dtype=torch.float64)
    scores[0, ::5] = -torch.inf

    def everything() -> list[torch.Tensor]:
        leaf = scores.clone().requires_grad_()
        total, marginals = structure.log_partition(leaf, lengths), structure.marginals(leaf, lengths)
        gradients = [torch.autograd.grad(own, leaf)[0] for own in (total.sum(), (marginals * direction).sum())]
        return [total.detach(), marginals.detach(), *gradients]

    found = everything()
    with reference_only():
        for own, expected in zip(found, everything(), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 9), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_a_constant_matters_only_where_the_number_may_vary(n, seed):
    scores = torch.randn(1, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    exact, free = Subset((n + 1) // 2), Subset(0, n)
    torch.testing.assert_close(exact.marginals(scores + 3.0), exact.marginals(scores))
    torch.testing.assert_close(free.marginals(scores), scores.sigmoid())  # each item by itself
    torch.testing.assert_close(free.log_partition(scores), torch.nn.functional.softplus(scores).sum(1))
    assert (free.marginals(scores + 1.0) > free.marginals(scores)).all()


def test_samples_have_the_right_frequencies():
    structure, scores = Subset(1, 2), torch.randn(1, 4, dtype=torch.float64)
    every = structure.enumerate(4).double()
    chances = (every @ scores[0]).softmax(0)
    drawn = structure.sample(scores, num_samples=4000, generator=torch.Generator().manual_seed(3))[:, 0]
    counts = torch.stack([(drawn == own).all(1).sum() for own in every])
    assert chisquare(counts.numpy(), (4000 * chances).numpy()).pvalue > 1e-3


def test_the_projections_parts_span_its_face():
    """As many subsets as there are entries between 0 and 1, and one more where the sum may move: what its gradient needs."""
    scores = torch.tensor([[0.9, 0.7, 0.8, -2.0, 5.0]], dtype=torch.float64)
    for structure, count in ((Subset(2), 3), (Subset(1, 4), 4)):
        point = selection.projection(structure, scores, torch.tensor([5]))
        assert int(((point > 0) & (point < 1)).sum()) == 3
        assert int(selection.made_of(point)[2]) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-2,), "`at_least` must be a whole number of at least 0, got -2"),
        ((1.5,), "`at_least` must be a whole number of at least 0, got 1.5. For a share"),
        ((True,), "`at_least` must be a whole number"),
        ((math.inf,), "`at_least` must be a whole number"),
        ((3, 2), "`at_most` must not be below `at_least`, got 2 and 3"),
        ((0.2, 1.5, True), "`at_most` must be a share between 0 and 1, got 1.5"),
        ((math.nan,), "`at_least` must be a whole number"),
    ],
)
def test_bounds_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Subset(*arguments)


@pytest.mark.parametrize("name", ["argmax", "log_partition", "marginals", "sparsemap", "sample", "top_k", "entropy"])
def test_rows_with_too_few_items_are_named(name):
    scores, structure = torch.randn(2, 4), Subset(3)
    with pytest.raises(ValueError, match=r"`lengths` must be at least 3, the number of items .* but lengths\[1\] is 2"):
        getattr(structure, name)(scores, torch.tensor([4, 2]))
    scores[1, :2] = -torch.inf
    with pytest.raises(ValueError, match=r"`scores` must leave a structure to choose in every row, but in scores\[1\]"):
        getattr(structure, name)(scores)
    assert torch.isfinite(Subset(3, math.inf).log_partition(torch.randn(2, 4))).all()
