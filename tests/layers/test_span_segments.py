"""Labels of words and segments: both ways, against the spans that a scheme reads off the labels."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent.layers import SpanScheme, SpanScorer, SpanSegments
from hf_latent.structures import SegmentScores

BIO = ["O", "B-y", "I-y", "B-x", "I-x"]
BIOES = ["O", "B-x", "I-x", "E-x", "S-x", "B-y", "E-y", "S-y"]  # of y, spans have one word or two
SINGLE = ["O", "B-x", "I-x", "B-y"]  # of y, one


def valid(scheme, tags):
    allowed = scheme.constraints
    return (
        bool(allowed.starts[tags[0]])
        and bool(allowed.ends[tags[-1]])
        and all(allowed.transitions[pair] for pair in itertools.pairwise(tags))
    )


@pytest.mark.parametrize("kind", ["BIO", "BIOES"])
@pytest.mark.parametrize("names", [BIO, BIOES, SINGLE], ids=["bio", "bioes", "single"])
def test_segmentations_are_the_valid_sequences(kind, names):
    """One for each, and no other, whose spans are short enough; by enumeration."""
    if (kind == "BIOES") != (names is BIOES):
        pytest.skip("other labels")
    scheme, n, longest = SpanScheme(names, kind), 4, 3
    segments = SpanSegments(scheme, longest)
    assert segments.types == ["x", "y"]
    scores = torch.zeros(1, n, longest, 3).masked_fill(~segments.allowed, -torch.inf)
    best = SegmentScores(scores).top_k(len(names) ** n)
    found = segments.tags_of(best.choices[0, best.scores[0] == 0])
    expected = [
        tags
        for tags in itertools.product(range(len(names)), repeat=n)
        if valid(scheme, tags) and all(span.end - span.start <= longest for span in scheme.spans(tags))
    ]
    assert sorted(map(tuple, found.tolist())) == expected


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([BIO, BIOES, SINGLE]), st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 4))
def test_known_labels_and_marginals_against_enumeration(names, seed, n, longest):
    scheme = SpanScheme(names, "BIOES" if names is BIOES else "BIO")
    segments, generator = SpanSegments(scheme, longest), torch.Generator().manual_seed(seed)
    lengths = torch.tensor([n, max(n - 2, 0)])
    scores = torch.randn(2, n, longest, 3, generator=generator, dtype=torch.float64)
    field = SegmentScores(scores.masked_fill(~segments.allowed, -torch.inf), torch.randn(3, 3, generator=generator), lengths)
    best = field.top_k(600)
    each = segments.tags_of(best.choices.flatten(0, 1)).view(2, -1, n)
    there = best.scores > -torch.inf
    chances = (best.scores - field.log_partition()[:, None]).exp()
    torch.testing.assert_close(chances.sum(1), torch.ones(2, dtype=chances.dtype))
    expected = torch.zeros(2, n, len(names), dtype=torch.float64)
    for row, one in there.nonzero().tolist():
        for word in range(int(lengths[row])):
            expected[row, word, each[row, one, word]] += chances[row, one]
    found = segments.tag_marginals(field.marginals())
    torch.testing.assert_close(found, expected)
    # Of some sequence a part of the labels: all that have them add up.
    known = each[:, 0].where(torch.rand(2, n, generator=generator) < 0.5, -100)
    gold = SegmentScores(field.segments.masked_fill(~segments.agreeing(known), -torch.inf), field.transitions, lengths)
    for row in range(2):
        has = there[row] & ((each[row] == known[row]) | (known[row] < 0)).all(1)
        torch.testing.assert_close(gold.log_partition()[row], best.scores[row, has].logsumexp(0))


def test_scores_of_stretches_by_their_formula():
    torch.manual_seed(0)
    scorer = SpanScorer(6, 3, 2, size=4)
    torch.nn.init.normal_(scorer.lengths)
    words = torch.randn(2, 5, 6)
    found = scorer(words)
    assert found.shape == (2, 5, 3, 2)
    first, last, inside = scorer.parts(words).split(4, dim=-1)
    for i, j in itertools.combinations_with_replacement(range(5), 2):
        if j - i < 3:
            hidden = first[:, i] + last[:, j] + inside[:, i : j + 1].mean(1) + scorer.lengths[j - i]
            torch.testing.assert_close(found[:, i, j - i], scorer.output(hidden.relu()))
    assert scorer(words[:, :0]).shape == (2, 0, 3, 2)
    assert scorer(words[:, :1]).shape == (2, 1, 3, 2)


def test_errors():
    with pytest.raises(ValueError, match="must be labels in BIO or BIOES for segments, got those of IOB1"):
        SpanSegments(SpanScheme(["O", "I-x", "B-x"], "IOB1"), 3)
    with pytest.raises(ValueError, match="`longest` must be"):
        SpanSegments(SpanScheme(BIO), 0)
