"""Segmentations with scores of transitions: against all segmentations, `Segmentation`, the reference, and derivatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hf_latent import Segmentation, SegmentScores
from hf_latent.inference.operators import reference_only
from hf_latent.structures.segmentation import conversions
from hf_latent.structures.segmentation.segment_operators import operators

LENGTHS = torch.tensor([4, 1, 3, 0, 2, 4, 4, 2, 3, 1, 4])
LOW = {"all allowed": None, "-inf": -torch.inf, "finfo.min": torch.finfo(torch.float64).min, "-1e4": -1e4, "-1e18": -1e18}
KINDS = ["none", "shared", "own"]
LONGEST, LABELS = 3, 2


def scores_of(kind: str, low: float | None = None, scale: float = 1.5) -> list[torch.Tensor]:
    """Segments (NaN beyond the sentence), transitions, starts and ends."""
    batch, n = len(LENGTHS), int(LENGTHS.max())
    links = {"none": (0, 0), "shared": (LABELS, LABELS), "own": (batch, LABELS, LABELS)}[kind]
    shapes = (batch, n, LONGEST, LABELS), links, (LABELS,), (batch, LABELS)
    segments, transitions, start, end = (scale * torch.randn(shape, dtype=torch.float64) for shape in shapes)
    if low is not None:
        segments[::2, 0, 1, 0] = segments[:, 1, 0, 1] = end[::3, 1] = low
        if kind != "none":
            transitions[..., 0, 1] = low
    words, sizes = torch.arange(n), torch.arange(LONGEST)
    segments[words[:, None] + sizes >= LENGTHS[:, None, None]] = torch.nan
    return [segments, transitions, start, end]


def scored(segments, transitions, start=None, end=None) -> SegmentScores:
    return SegmentScores(segments, transitions if transitions.numel() else None, LENGTHS, start, end)


def every(given: list[torch.Tensor], row: int) -> tuple[list[list[tuple[int, int, int]]], torch.Tensor]:
    """All segmentations of a row, and their scores, added up one by one."""
    segments, transitions, start, end = given

    def ways(first: int) -> list[list[tuple[int, int, int]]]:
        if first == length:
            return [[]]
        afters = {after: ways(after) for after in range(first + 1, min(first + LONGEST, length) + 1)}
        return [[(first, after, y), *rest] for after in afters for y in range(LABELS) for rest in afters[after]]

    length, totals = int(LENGTHS[row]), []
    for way in ways(0):
        total = torch.zeros((), dtype=torch.float64)
        for place, (first, after, y) in enumerate(way):
            total = total + segments[row, first, after - first - 1, y]
            if place and transitions.numel():
                total = total + transitions.expand(len(LENGTHS), LABELS, LABELS)[row, way[place - 1][2], y]
        if way:
            total = total + start[way[0][2]] + end[row, way[-1][2]]
        totals.append(total)
    return ways(0), torch.stack(totals)


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("kind", KINDS)
def test_against_all_segmentations(kind, low):
    given = scores_of(kind, LOW[low])
    scores = scored(*given)
    best, log_partition, marginals, top = scores.argmax(), scores.log_partition(), scores.marginals(), scores.top_k(5)
    counts, log_prob, entropy = scores.transition_counts(), scores.log_prob(best), scores.entropy()
    for row, length in enumerate(LENGTHS.tolist()):
        ways, totals = every(given, row)
        order = totals.argsort(descending=True)
        assert conversions.lists_from_choices(best[[row]], LABELS) == [ways[order[0]]]
        torch.testing.assert_close(log_partition[row], totals.logsumexp(0))
        torch.testing.assert_close(log_prob[row], totals.log_softmax(0).max())
        chances = totals.softmax(0)
        expected, transitions = torch.zeros_like(marginals[row]), torch.zeros_like(counts[row])
        for way, chance in zip(ways, chances, strict=True):
            for place, (first, after, y) in enumerate(way):
                expected[first, after - first - 1, y] += chance
                if place:
                    transitions[way[place - 1][2], y] += chance
        torch.testing.assert_close(marginals[row], expected)
        assert torch.equal(marginals[row] == 0, expected == 0)
        torch.testing.assert_close(counts[row], transitions)
        torch.testing.assert_close(entropy[row], torch.special.entr(chances).sum())
        allowed = min(5, int((totals > -1e5).sum()))
        assert conversions.lists_from_choices(top.choices[row, :allowed], LABELS) == [ways[one] for one in order[:allowed]]
        torch.testing.assert_close(top.scores[row, :allowed], totals[order[:allowed]])
        assert top.scores[row, allowed:].isneginf().all()
        assert (top.choices[row, allowed:] == -1).all()
        assert (best[row, length:] == -1).all()
        each = [scores.log_prob(best.index_copy(0, torch.tensor([row]), one[None]))[row] for one in choices_of(ways)]
        torch.testing.assert_close(torch.stack(each).exp(), chances)


def choices_of(ways: list[list[tuple[int, int, int]]]) -> torch.Tensor:
    return conversions.choices_from_lists(ways, 4, LONGEST, LABELS)


def test_the_distribution_is_that_of_segmentation():
    given = scores_of("none", -torch.inf)
    scores = scored(*given)
    structure = Segmentation(LONGEST, LABELS)
    torch.testing.assert_close(structure.log_partition(scores.segments, LENGTHS), scores.log_partition())
    torch.testing.assert_close(structure.marginals(scores.segments, LENGTHS), scores.marginals())
    torch.testing.assert_close(structure.entropy(scores.segments, LENGTHS), scores.entropy())
    best = conversions.segments_from_choices(scores.argmax(), LONGEST, LABELS, torch.float64)
    assert torch.equal(structure.argmax(scores.segments, LENGTHS), best)
    nothing = SegmentScores(given[0], torch.zeros(LABELS, LABELS, dtype=torch.float64), LENGTHS, *given[2:])
    torch.testing.assert_close(nothing.marginals(), scores.marginals())


@pytest.mark.parametrize("scale", [1.5, 300.0, 1e4, 1e20])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_says_the_same(kind, scale):
    given = scores_of(kind, None, scale)
    directions, weights = [torch.randn_like(one) for one in given[:2]], torch.randn(len(LENGTHS), dtype=torch.float64)
    own = *scored(*given)._own[:2], LENGTHS
    seeds = torch.randint(2**62, (3, len(LENGTHS)))

    def everything():
        return [
            operators.argmax(*own),
            operators.log_partition(*own),
            *operators.expectations(*own, weights),
            *operators.expectations_derivative(*own, weights, *directions),
            operators.sample(*own, seeds),
        ]

    found = everything()
    with reference_only():
        for one, expected in zip(found[:-1], everything()[:-1], strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)
    assert all(scored(*given).log_prob(one).isfinite().all() for one in found[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    given = [scores.nan_to_num().requires_grad_() for scores in scores_of(kind)]
    choices = scored(*given).sample()[0]
    for name in ("log_partition", "marginals", "transition_counts", "entropy"):
        assert torch.autograd.gradcheck(lambda *scores, name=name: getattr(scored(*scores), name)(), given, fast_mode=True)
    assert torch.autograd.gradcheck(lambda *scores: scored(*scores).log_prob(choices), given)
    assert torch.autograd.gradgradcheck(lambda *scores: scored(*scores).log_partition(), given, fast_mode=True)


def test_the_gradient_in_transitions_is_how_often_each_is_expected():
    given = [scores.requires_grad_() for scores in scores_of("shared", -torch.inf)]
    scores = scored(*given)
    (gradient,) = torch.autograd.grad(scores.log_partition().sum(), given[1])
    torch.testing.assert_close(gradient, scores.transition_counts().sum(0))


@pytest.mark.parametrize("name", ["log_partition", "marginals", "entropy"])
def test_what_is_forbidden_or_beyond_the_sentence_has_no_gradient(name):
    given = [scores.requires_grad_() for scores in scores_of("shared", -torch.inf)]
    (getattr(scored(*given), name)() ** 2).sum().backward()
    for scores in given:
        assert scores.grad.isfinite().all()
        assert (scores.grad[~scores.detach().isfinite()] == 0).all()
        assert (scores.grad != 0).any()


@pytest.mark.parametrize("way", ["kernels", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples(kind, way):
    given, count = scores_of(kind, -torch.inf), 4000
    scores = scored(*given)
    if way == "kernels":
        drawn = scores.sample(count, torch.Generator().manual_seed(1))
        assert torch.equal(drawn, scores.sample(count, torch.Generator().manual_seed(1)))
    else:
        with reference_only():
            drawn = scores.sample(count, torch.Generator().manual_seed(1))
    for row in range(len(LENGTHS)):
        ways, totals = every(given, row)
        same = (choices_of(ways)[:, None] == drawn[:, row]).all(2)
        assert same.any(0).all()
        counts, expected = same.sum(1).double(), totals.softmax(0) * count
        assert (counts[expected == 0] == 0).all()
        often = expected > 5
        rest = torch.stack([counts[~often].sum(), expected[~often].sum()]).clamp(min=1e-9)
        observed, expected = torch.cat([counts[often], rest[:1]]), torch.cat([expected[often], rest[1:]])
        if often.sum() > 1:
            assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4


def test_opcheck():
    for kind in KINDS:
        segments, transitions, *_ = scores_of(kind)
        leaves = segments.requires_grad_(), transitions.requires_grad_(), LENGTHS
        given, ones = (segments.detach(), transitions.detach(), LENGTHS), torch.ones(len(LENGTHS), dtype=torch.float64)
        arguments_of = {
            "argmax": given,
            "log_partition": leaves,
            "expectations": (*leaves, ones),
            "expectations_derivative": (*given, ones, torch.randn_like(given[0]), torch.randn_like(given[1])),
            "sample": (*given, torch.randint(9, (2, len(LENGTHS)))),
            "top_k": (*given, 2),
        }
        for name, arguments in arguments_of.items():
            results = torch.library.opcheck(getattr(operators, name), arguments)
            assert set(results.values()) == {"SUCCESS"}, (kind, name, results)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31), st.sampled_from([0.1, 3.0, 1e3]))
def test_invariants(n, longest, labels, seed, scale):
    """Each word lies in one segment; the best is likeliest; a constant for each word moves log Z alone."""
    generator = torch.Generator().manual_seed(seed)
    segments, transitions = (
        scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, n, longest, labels), (labels, labels))
    )
    lengths = torch.randint(0, n + 1, (3,), generator=generator)
    scores = SegmentScores(segments, transitions, lengths)
    marginals, sizes = scores.marginals(), torch.arange(1, longest + 1)
    torch.testing.assert_close((marginals.sum(3) * sizes).sum((1, 2)), lengths.double())
    torch.testing.assert_close(marginals[:, 0].sum((1, 2)), (lengths > 0).double())
    counts = marginals.sum((1, 2, 3)) - (lengths > 0).double()
    torch.testing.assert_close(scores.transition_counts().sum((1, 2)), counts)
    top = scores.top_k(3)
    assert torch.equal(top.choices[:, 0], scores.argmax())
    torch.testing.assert_close(scores.score(scores.argmax()), top.scores[:, 0])
    assert (scores.log_prob(scores.sample()[0]) <= scores.log_prob(scores.argmax()) + 1e-9).all()
    moved = SegmentScores(segments + 2.0 * sizes[:, None], transitions, lengths)
    torch.testing.assert_close(moved.log_partition(), scores.log_partition() + 2.0 * lengths)
    torch.testing.assert_close(moved.marginals(), marginals)
