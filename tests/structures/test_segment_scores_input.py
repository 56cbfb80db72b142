"""What may come into `SegmentScores`: long sentences, dtypes, compiled graphs, and what is an error that says so."""

import pytest
import torch

from hf_latent import SegmentScores
from hf_latent.inference.operators import reference_only
from hf_latent.structures.segmentation import conversions


@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_long_sentences_in_every_dtype(scale):
    """Whose sums, and those of single words, would not fit into a number."""
    torch.manual_seed(2)
    segments, transitions = scale * torch.randn(3, 2000, 4, 3), scale * torch.randn(3, 3)
    lengths = torch.tensor([2000, 1999, 700])
    exact = SegmentScores(segments.double(), transitions.double(), lengths)
    with reference_only():
        expected = exact.log_partition(), exact.marginals()
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.02)):
        scores = SegmentScores(segments.to(dtype), transitions.to(dtype), lengths)
        assert scores.log_partition().dtype == torch.promote_types(dtype, torch.float32)
        assert scores.marginals().dtype == dtype
        torch.testing.assert_close(scores.log_partition().double(), expected[0], rtol=close, atol=0)
        if dtype.itemsize > 2:
            torch.testing.assert_close(scores.marginals().double(), expected[1], rtol=0, atol=1e-6)
        words = (scores.marginals().double().sum(3) * torch.arange(1, 5)).sum((1, 2))
        torch.testing.assert_close(words, lengths.double(), rtol=max(close, 1e-6), atol=0)
    assert exact.log_prob(exact.argmax()).isfinite().all()
    assert exact.log_prob(exact.sample()[0]).isfinite().all()


def test_ways_that_only_very_low_scores_allow():
    """All that is likely leads to a dead end: what is kept must be what survives."""
    segments = torch.zeros(9, 200, 2, 2, dtype=torch.float64)
    segments[:, :, :, 0] = 20.0  # label 0 is far better everywhere, and may not be last
    segments[:, :, 1, 1] = -3000.0
    transitions = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=torch.float64)
    scores = SegmentScores(segments, transitions, end=torch.tensor([-torch.inf, 0.0], dtype=torch.float64))
    assert torch.equal(scores.log_partition(), torch.zeros(9, dtype=torch.float64))
    assert torch.equal(scores.marginals()[:, :, 0, 1], torch.ones(9, 200, dtype=torch.float64))
    assert (scores.argmax() == 1).all()
    assert (scores.sample(2) == 1).all()


def test_what_is_forbidden_although_it_is_reached():
    """A place that no transition leads on from, beside one that does; far apart."""
    segments = torch.zeros(1, 3, 3, 2, dtype=torch.float64)
    segments[0, 0, 0, 0] = 5000.0  # a dead end: label 0 is followed by nothing
    transitions = torch.tensor([[-torch.inf, -torch.inf], [-2000.0, -3000.0]], dtype=torch.float64)
    scores = SegmentScores(segments, transitions)
    assert scores.log_partition().item() == pytest.approx(torch.tensor(2.0).log().item())
    assert scores.marginals()[0, 0].tolist() == [[0, 0], [0, 0], [0.5, 0.5]]


def test_lengths_sentences_and_batches_of_nothing():
    for shape in ((0, 3, 2, 2), (2, 0, 2, 2)):
        for transitions in (None, torch.randn(2, 2)):
            segments = torch.randn(shape, requires_grad=True)
            scores = SegmentScores(segments, transitions)
            assert scores.log_partition().tolist() == scores.entropy().tolist() == [0.0] * shape[0]
            assert scores.marginals().shape == shape
            assert scores.transition_counts().shape == (shape[0], 2, 2)
            assert scores.argmax().shape == scores.sample()[0].shape == scores.top_k(1).choices[:, 0].shape == shape[:2]
            assert scores.log_prob(scores.argmax()).tolist() == [0.0] * shape[0]
            assert torch.autograd.grad(scores.log_partition().sum(), segments)[0].shape == shape


def test_one_graph_for_batches_of_many_sizes():
    graphs = 0

    def backend(*arguments):
        nonlocal graphs
        graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(*arguments)

    def everything(segments, transitions, lengths, start, choices):
        scores = SegmentScores(segments, transitions, lengths, start, start)
        differentiable = scores.log_partition(), scores.marginals(), scores.transition_counts(), scores.entropy()
        return *differentiable, scores.log_prob(choices), scores.argmax(), *scores.top_k(2), scores.sample(2)

    torch._dynamo.reset()
    compiled = torch.compile(everything, fullgraph=True, backend=backend, dynamic=True)
    for batch, n in ((5, 7), (6, 9), (11, 8)):
        segments, transitions = torch.randn(batch, n, 3, 2).requires_grad_(), torch.randn(2, 2)
        lengths, start = torch.randint(1, n + 1, (batch,)), torch.randn(2)
        choices = SegmentScores(segments, transitions, lengths).argmax()
        results = [way(segments, transitions, lengths, start, choices) for way in (compiled, everything)]
        for found, expected in zip(results[0][:-1], results[1][:-1], strict=True):
            torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(sum(one.sum().cos() for one in found[:5]), segments)[0] for found in results]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert graphs == 1


def test_conversions_are_inverses():
    scores = SegmentScores(torch.randn(4, 6, 3, 2), lengths=torch.tensor([6, 3, 1, 0]))
    best = scores.argmax()
    assert torch.equal(conversions.choices_from_segments(conversions.segments_from_choices(best, 3, 2)), best)
    assert torch.equal(conversions.choices_from_lists(conversions.lists_from_choices(best, 2), 6, 3, 2), best)
    with pytest.raises(ValueError, match=r"of at most 3 of them and with a label below 2, but sentence 1 has \(0, 4, 1\)"):
        conversions.choices_from_lists([[(0, 1, 0)], [(0, 4, 1)]], 6, 3, 2)
    with pytest.raises(ValueError, match="`choices` must be an integer tensor of shape"):
        conversions.lists_from_choices(best.float(), 2)


def test_bad_input():
    segments, transitions = torch.randn(2, 3, 2, 4), torch.randn(4, 4)
    with pytest.raises(ValueError, match=r"`segments` must have shape \(batch, n, max_length, labels\)"):
        SegmentScores(segments[0], transitions)
    with pytest.raises(ValueError, match="`segments` must have at least one length and one label"):
        SegmentScores(segments[:, :, :0])
    with pytest.raises(ValueError, match=r"`transitions` must .* here \(4, 4\), .* here \(2, 4, 4\)"):
        SegmentScores(segments, transitions[:3])
    with pytest.raises(ValueError, match=r"`start` must have shape \(4,\)"):
        SegmentScores(segments, transitions, start=torch.randn(3))
    with pytest.raises(TypeError, match=r"`end` must be a floating point tensor, got \[1, 2, 3, 4\]"):
        SegmentScores(segments, transitions, end=[1, 2, 3, 4])
    for start, place in ((torch.tensor([0, 0, torch.nan, 0]), "2"), (torch.tensor([[0.0] * 4, [0, 0, 0, torch.inf]]), "1, 3")):
        with pytest.raises(ValueError, match=rf"`start` must be finite .* but start\[{place}\] is"):
            SegmentScores(segments, transitions, start=start)
    with pytest.raises(ValueError, match="`lengths` must lie between 0 and 3"):
        SegmentScores(segments, transitions, torch.tensor([4, 1])).argmax()
    wrong = segments.clone()
    wrong[1, 0, 1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"segments\[1, 0, 1, 2\] is nan"):
        SegmentScores(wrong, transitions).marginals()
    for links, place in ((transitions.clone(), "3, 0"), (transitions.repeat(2, 1, 1), "1, 3, 0")):
        links[(..., 3, 0) if links.dim() == 2 else (1, 3, 0)] = torch.inf
        with pytest.raises(ValueError, match=rf"transitions\[{place}\] is inf"):
            SegmentScores(segments, links).log_partition()
    none = segments.clone()
    none[1, 0] = -torch.inf
    for name in ("argmax", "log_partition", "marginals", "sample", "entropy"):
        for way in (transitions, None):
            with pytest.raises(ValueError, match=r"`segments` must leave a structure to choose .*, but in segments\[1\]"):
                getattr(SegmentScores(none, way), name)()
    with pytest.raises(ValueError, match=r"segments\[1\]"):
        SegmentScores(none, transitions).top_k(2)


@pytest.mark.parametrize(
    ("choices", "place"),
    [
        ([[0, -1, 0], [4, -1, 1]], r"\[0, 1\]"),  # a gap
        ([[4, 0, 0], [4, -1, 1]], r"\[0, 1\]"),  # two over one word
        ([[4, -1, 0], [8, -1, -1]], r"\[1, 0\]"),  # no such length
        ([[4, -1, 0], [0, 4, 0]], r"\[1, 2\]"),
        ([[4, -1, 4], [4, -1, 0]], r"\[0, 2\]"),  # beyond the sentence
        ([[4, -1, -1], [4, -1, 0]], r"\[0, 2\]"),  # ends before it
        ([[-1, -1, -1], [4, -1, 0]], r"\[0, 0\]"),
    ],
)
def test_choices_that_are_no_segmentation(choices, place):
    scores = SegmentScores(torch.randn(2, 3, 2, 4), torch.randn(4, 4))
    with pytest.raises(ValueError, match=rf"`choices` must be a segmentation: .* but choices{place} \(sentence, word\) is"):
        scores.score(torch.tensor(choices))


def test_choices_of_another_shape():
    with pytest.raises(ValueError, match=r"`choices` must be integers of shape \(batch, n\), here \(2, 3\), got"):
        SegmentScores(torch.randn(2, 3, 2, 4)).score(torch.zeros(2, 4, dtype=torch.int64))
