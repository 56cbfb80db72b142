"""Scorers that see how words stand to each other, and not where."""

import pytest
import torch

from hf_latent.layers import CounterArcScorer, Counters, KindEmbedding, LatentTreeLayer, RelativeArcScorer


def random_words(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("counters", [0, 2])
def test_scores_are_the_formula(counters):
    torch.manual_seed(0)
    scorer = RelativeArcScorer(5, arc_size=7, counters=counters)
    torch.nn.init.normal_(scorer.near.weight)
    words = random_words(2, 4, 5)
    scores = scorer(words)
    assert scores.shape == (2, 4, 5)
    for i in range(4):
        d, c_d = words[0, i].split([5 - counters, counters])
        torch.testing.assert_close(scores[0, i, :1], scorer.root(d))
        for j in range(4):
            h, c_h = words[0, j].split([5 - counters, counters])
            hidden = scorer.dependent(d) + scorer.head(h) + torch.tensor(j - i).sign() * scorer.side
            if counters:
                hidden = hidden + scorer.counts(c_h - c_d)
            distance = torch.tensor(abs(i - j) + 1.0).log()
            near = scorer.near(d)[0 if j < i else 1] * 2 * distance / (1 + distance)
            torch.testing.assert_close(scores[0, i, j + 1], (scorer.output(hidden.tanh()) - near)[0])


@pytest.mark.parametrize("scorer", [RelativeArcScorer(5), RelativeArcScorer(5, counters=2)])
def test_arcs_between_words_do_not_depend_on_where_they_are(scorer):
    words = random_words(1, 9, 5)
    before, after = scorer(words)[:, 3:, 4:], scorer(words[:, 3:])[:, :, 1:]
    torch.testing.assert_close(before, after)
    moved = words.clone()
    moved[..., 5 - (2 if scorer.counts else 0) :] += 3  # counts may begin anywhere
    torch.testing.assert_close(scorer(moved), scorer(words))


def test_near_heads_come_first():
    torch.manual_seed(0)
    scorer = RelativeArcScorer(5)
    torch.nn.init.zeros_(scorer.output.weight)
    scores = scorer(random_words(1, 200, 5))[0]
    assert (scores[150, 2:150].diff() > 0).all()
    assert (scores[150, 152:].diff() < 0).all()
    assert scores[150, 1] > -2  # however far


def test_counters_count_what_came_before():
    counters = Counters(3, counters=2).eval()
    # Tokens 0, 1 and 2 go up, stay and go down in the first counter, and the other way round in the second.
    with torch.no_grad():
        counters.steps.weight.copy_(torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1.0]]))
    tokens = torch.eye(3)[torch.tensor([[0, 1, 0, 2, 1, 2, 2]])]
    expected = torch.tensor([0, 1, 1, 2, 1, 1, 0.0])
    assert torch.equal(counters(tokens)[0], torch.stack([expected, -expected], dim=1))


def test_steps_become_whole_as_the_temperature_falls():
    torch.manual_seed(0)
    counters = Counters(4, counters=3)
    tokens = random_words(2, 50, 4)
    whole = counters.eval()(tokens)
    assert torch.equal(whole, whole.round())
    counters.train()
    distances = []
    for counters.temperature in (1.0, 0.1, 1e-4):
        distances.append((counters(tokens) - whole).abs().max().item())
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-3
    counters.temperature = 1.0
    (gradient,) = torch.autograd.grad(counters(tokens).sum(), counters.steps.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["relative", "counter"])
def test_by_name_in_a_layer(name):
    layer = LatentTreeLayer(6, arc_scorer=name, arc_size=8)
    words = random_words(2, 5, 6).requires_grad_()
    tree = layer(words, torch.tensor([5, 3]))
    tree.arcs.square().sum().backward()
    assert words.grad[1, 3:].abs().sum() == 0  # what lies beyond a sentence has no say
    assert words.grad[0].abs().sum() > 0
    assert isinstance(layer.scorer, {"relative": RelativeArcScorer, "counter": CounterArcScorer}[name])


def test_tokens_of_a_kind_look_alike():
    embedding = KindEmbedding([0, 1, 1, 2], 5)
    seen = embedding(torch.tensor([[0, 1, 2, 3]]))[0]
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])
    for wrong in ([], [0, -1], [0.5]):
        with pytest.raises(ValueError, match="`kinds` must give each token"):
            KindEmbedding(wrong, 5)
