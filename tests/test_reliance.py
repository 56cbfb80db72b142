"""How much a model relies on its trees, where that is known; and the trees that are put in place of its own."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from hf_latent import (
    DependencyTree,
    HeadAveraging,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeLayer,
    parse,
)
from hf_latent.diagnostics import Reliance, reliance, replaced_trees
from hf_latent.reliance import KINDS
from hf_latent.structures.dependency_tree.conversions import arcs_from_heads, heads_from_arcs
from hf_latent.trees import Tree, baseline_trees

LENGTHS = torch.tensor([5, 3, 0, 1, 5, 2, 4, 0])


class Reader(nn.Module):
    """A network of a user's own; what it returns is what its decoder sees."""

    def __init__(self, structure: DependencyTree | None = None, **options) -> None:
        super().__init__()
        self.tree = LatentTreeLayer(8, structure=structure, **{"estimator": "spigot"} | options)
        self.averaging = HeadAveraging(8)

    def forward(self, words, lengths=None):
        return self.tree(words, lengths).arcs


def heads_of(arcs, lengths=LENGTHS):
    return heads_from_arcs(arcs, lengths).tolist()


def arcs_of(model, kind, words, lengths=LENGTHS, seed=0):
    with replaced_trees(model.eval(), kind, seed):
        return model(words, lengths)


# --- The trees.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sentences", [1, 2])
def test_other_trees_are_trees_of_the_structure(tree, kind, sentences):
    """All four kinds of structures, mixed lengths, rows without words, and several sentences to a row."""
    model = Reader(tree).eval()
    words = torch.randn(8, 5, 8)
    own = model(words, LENGTHS)
    shape = (8,) if sentences == 1 else (4, 2)
    arcs = arcs_of(model, kind, words.view(*shape, 5, 8), LENGTHS.view(shape))
    assert arcs.shape == (*shape, 5, 6)
    assert arcs.dtype == own.dtype
    for row, length in zip(arcs.view(8, 5, 6), LENGTHS.tolist(), strict=True):
        assert (row[:length, : length + 1] == tree.enumerate(length)).flatten(1).all(1).any()
        assert row[length:].eq(0).all()
        assert row[:, length + 1 :].eq(0).all()
    assert not torch.equal(arcs.view(8, 5, 6), own)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_batches_without_words(tree, kind, shape):
    assert arcs_of(Reader(tree), kind, torch.zeros(*shape, 8), None).shape == (*shape, shape[1] + 1)


def test_shapes_are_those_of_the_baselines(tree):
    words = torch.randn(8, 5, 8)
    baselines = baseline_trees([Tree(("a",) * length, (0,) * length) for length in LENGTHS.tolist()])
    for kind in ("left-branching", "right-branching", "flat"):
        expected = [[*one.heads, *[-1] * (5 - len(one.heads))] for one in baselines[kind]]
        if kind == "flat" and tree.single_root:
            expected = [[min(place, 1) if head == 0 else -1 for place, head in enumerate(row)] for row in expected]
        assert heads_of(arcs_of(Reader(tree), kind.replace("-", "_"), words)) == expected


def test_random_trees_are_drawn_uniformly(tree):
    words, lengths = torch.zeros(6000, 3, 8), torch.full((6000,), 3)
    counts = Counter(map(tuple, heads_of(arcs_of(Reader(tree), "random", words, lengths), lengths)))
    expected = 6000 / len(tree.enumerate(3))
    assert set(counts) == {tuple(heads) for heads in heads_from_arcs(tree.enumerate(3)).tolist()}
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("kind", ["random", "shuffled"])
def test_a_seed_draws_the_same_trees_and_leaves_the_random_state(kind):
    model, words = Reader(), torch.randn(1, 9, 8)
    before = torch.get_rng_state()
    first, again, other = (arcs_of(model, kind, words, None, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def moved_round(scores, by):
    """`scores (n, n + 1)` of a sentence that begins with the word `by`."""
    words = torch.cat([scores[:, :1], scores[:, 1:].roll(-by, 1)], 1)
    return words.roll(-by, 0)


def test_shuffled_trees_are_those_of_other_sentences(tree):
    model, words, lengths = Reader(tree).eval(), torch.randn(4, 6, 8), torch.tensor([4, 6, 4, 3])
    own = model.tree(words, lengths)
    arcs = arcs_of(model, "shuffled", words, lengths)
    assert torch.equal(arcs[[0, 2]], own.arcs[[2, 0]])
    cut = [tree.argmax(own.scores[row : row + 1, :3, :4])[0] for row in (0, 2)]
    assert any(torch.equal(arcs[3, :3, :4], one) for one in cut)
    moved = [tree.argmax(moved_round(own.scores[1], by)[None])[0] for by in range(1, 6)]
    assert any(torch.equal(arcs[1], one) for one in moved)


def test_shuffled_trees_are_averages_where_the_own_are():
    model, words, lengths = Reader(estimator="marginals").eval(), torch.randn(2, 4, 8), torch.tensor([4, 4])
    own = model(words, lengths)
    torch.testing.assert_close(arcs_of(model, "shuffled", words, lengths), own[[1, 0]])
    model = Reader(estimator="marginals", argmax_at_evaluation=True).eval()
    assert set(arcs_of(model, "shuffled", words, lengths).unique().tolist()) == {0, 1}


class OneTreeAlone(nn.Module):
    """Forbids all arcs but those of one tree for each of two sentences."""

    def forward(self, words):
        return arcs_from_heads(torch.tensor([[2, 3, 4, 5, 0], [2, 3, 0, -1, -1]])).log()


def test_arcs_that_a_scorer_forbids(tree):
    """What is left of the scores may have no tree over another sentence, or in another order."""
    model = Reader(tree, arc_scorer=OneTreeAlone())
    words, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    assert heads_of(model.eval()(words, lengths), lengths) == [[2, 3, 4, 5, 0], [2, 3, 0, -1, -1]]
    for kind in KINDS:
        assert arcs_of(model, kind, words, lengths).sum() == 8


def test_how_lengths_are_passed():
    model, words = Reader().eval(), torch.randn(2, 3, 8)
    with replaced_trees(model, "left_branching") as replacement:
        for layer in (model.tree(words, torch.tensor([2, 3])), model.tree(words=words, lengths=torch.tensor([2, 3]))):
            assert heads_of(layer.arcs, torch.tensor([2, 3])) == [[2, 0, -1], [2, 3, 0]]
        assert heads_of(model.tree(words).arcs, None) == [[2, 3, 0], [2, 3, 0]]
    assert replacement.calls == 3


def test_in_training_the_layer_chooses_itself():
    model, words = Reader().train(), torch.randn(2, 4, 8)
    with replaced_trees(model, "left_branching") as replacement:
        assert torch.equal(model(words), model.eval()(words)) is False
        assert replacement.calls == 1
    assert torch.equal(model(words), model.train()(words))


def test_a_compiled_model():
    model, words = Reader().eval(), torch.randn(2, 4, 8)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        own = compiled(words)
        with replaced_trees(compiled, "left_branching"):
            assert heads_of(compiled(words), None) == [[2, 3, 4, 0]] * 2
        assert torch.equal(compiled(words), own)


@pytest.mark.parametrize("pairs", [False, True])
def test_models_of_ours(tiny_bert, wordpiece, pairs):
    model_class = LatentTreeForPairClassification if pairs else LatentTreeForSequenceClassification
    model = model_class.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot").eval()
    texts = ["a very good film .", "not unwatchable , good"]
    inputs = wordpiece(texts, texts[::-1] if pairs else None, padding=True, return_tensors="pt")
    with torch.no_grad():
        own = model(**inputs)
        for kind in KINDS:
            with replaced_trees(model, kind):
                other = model(**inputs)
            assert not torch.equal(other.arcs, own.arcs), kind
            assert not torch.equal(other.logits, own.logits), kind
            assert torch.equal(other.arc_scores, own.arc_scores)
        assert torch.equal(model(**inputs).logits, own.logits)


def test_the_heads_that_a_model_returns_stay_its_own(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot")
    texts = ["a very good film .", "not unwatchable , good"]
    own = parse(model, wordpiece, texts)
    with replaced_trees(model, "left_branching"):
        found = parse(model, wordpiece, texts)
    assert [tree.heads for tree in found] == [tree.heads for tree in own]
    for tree in found:  # of which the other trees have some arcs
        left = [*range(2, len(tree.words) + 1), 0]
        assert [weight == 1 for weight in tree.weights] == [head == other for head, other in zip(tree.heads, left, strict=True)]


def test_hooks_are_gone_whatever_happens():
    model = Reader()
    with pytest.raises(KeyError), replaced_trees(model, "flat"):
        raise KeyError
    assert not model.tree._forward_hooks
    with pytest.raises(KeyError):
        reliance(model, lambda: {}["accuracy"])
    assert not model.tree._forward_hooks


# --- The reliance.


def test_a_model_that_ignores_its_trees():
    model, words = Reader(), torch.randn(30, 5, 8)

    def evaluate():
        model(words)
        return (words[:, 0, 0] > 0).double().mean()

    found = reliance(model, evaluate)
    assert found.reliance == 0
    assert set(found.scores.values()) == {found.own}
    assert set(found.spread.values()) == {0}
    assert "The model does as well with random trees as with its own." in str(found)


def test_a_model_that_reads_nothing_but_its_trees(tree):
    """With random ones, it is at chance: what uniform marginals give to the arcs that are right."""
    model, words, lengths = Reader(tree).eval(), torch.randn(600, 5, 8), torch.arange(600) % 5 + 1
    right = model(words, lengths)
    chance = (tree.marginals(torch.zeros(600, 5, 6), lengths) * right).sum() / lengths.sum()
    found = reliance(model, lambda: (model(words, lengths) * right).sum() / lengths.sum(), metric="attachment score")
    assert found.own == 1
    assert list(found.replaced) == list(KINDS)
    assert found.replaced["random"] == pytest.approx(float(chance), abs=0.03)
    assert found.reliance == pytest.approx(1 - found.replaced["random"])
    assert all(score < 1 for score in found.replaced.values())
    assert all(0 < spread < 0.1 for spread in found.spread.values())
    assert set(found.spread) == {"random", "shuffled"}
    assert "as well" not in str(found)


def test_of_a_loss_less_is_better():
    model, words = Reader().eval(), torch.randn(30, 5, 8)
    right = model(words)
    found = reliance(model, lambda: float((model(words) - right).square().mean()), ["random"], 1, greater_is_better=False)
    assert found.own == 0
    assert found.reliance == found.replaced["random"] > 0
    assert found.spread == {}


def test_all_layers_of_a_network_are_replaced():
    model, words = nn.ModuleList([Reader(), Reader()]), torch.randn(3, 4, 8)
    with replaced_trees(model.eval(), "left_branching") as replacement:
        assert [heads_of(part(words), None) for part in model] == [[[2, 3, 4, 0]] * 3] * 2
    assert replacement.calls == 2


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_mode_and_random_state_are_as_they_were(fails):
    model, words = Reader().train(), torch.randn(2, 4, 8)
    model.averaging.eval()
    before, drawn = states(), []

    def evaluate():
        assert not any(module.training for module in model.modules())
        model(words)
        drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))  # noqa: NPY002
        if fails and len(drawn) == 3:
            raise KeyError("accuracy")
        return 0.5

    if fails:
        with pytest.raises(KeyError, match="accuracy"):
            reliance(model, evaluate)
    else:
        reliance(model, evaluate, repeats=2)
        assert len(drawn) == 1 + 2 + 3 + 2
    assert len(set(drawn)) == 1
    assert states() == before
    assert (model.training, model.tree.training, model.averaging.training) == (True, True, False)


def test_the_table():
    scores = {"random": 0.5, "left_branching": 0.625}
    assert str(Reliance(0.75, scores, "accuracy", spread={"random": 0.125})).splitlines() == [
        "trees              accuracy  spread",
        "own                  0.7500",
        "random               0.5000  0.1250",
        "left-branching       0.6250",
        "reliance             0.2500  (own less random)",
    ]
    longer = str(Reliance(0.75, scores, "a metric with a long name", greater_is_better=False)).splitlines()
    assert {len(line) for line in longer[:4]} == {16 + 1 + 25}
    assert longer[-1] == "The model does as well with random trees as with its own."


def test_what_is_wrong_is_said(tiny_bert, wordpiece):
    model, words = Reader(), torch.randn(2, 4, 8)
    plain = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=None)

    def returning(value):
        return lambda: (model(words), value)[1]

    with pytest.raises(ValueError, match="a LatentTreeForSequenceClassification, has no latent tree"):
        reliance(plain, lambda: 1.0)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"), replaced_trees("model", "flat"):
        pass
    with pytest.raises(ValueError, match=r"Unknown `kind` 'left-branching'\. The known ones are: random, flat"):
        replaced_trees(model, "left-branching").__enter__()
    for kinds in (["flat"], "random", ["random", "deep"]):
        with pytest.raises(ValueError, match="`kinds` must be some of random, flat"):
            reliance(model, lambda: 1.0, kinds)
    with pytest.raises(ValueError, match="`repeats` must be an integer of at least 1"):
        reliance(model, lambda: 1.0, repeats=0)
    with pytest.raises(TypeError, match="`evaluate` must be a function"):
        reliance(model, 0.5)
    for value in ({"accuracy": 1.0}, None, "0.5", torch.ones(2)):
        with pytest.raises(TypeError, match=r"must return a number, got .* \(with its own trees\)"):
            reliance(model, returning(value))
    for value in (float("nan"), np.float32("inf"), torch.tensor(torch.nan)):
        with pytest.raises(ValueError, match="must return a finite number"):
            reliance(model, returning(value))
    with pytest.raises(ValueError, match="did not call a latent tree of the `model`"):
        reliance(model, lambda: 0.5)
    with pytest.raises(ValueError, match="in evaluation mode"):
        reliance(model, lambda: model.train()(words).sum())
    for value in (1, np.float32(0.5), np.array(0.5), torch.tensor([0.5])):
        assert reliance(model, returning(value)).own == float(value)
