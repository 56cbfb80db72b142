"""Metrics, loaded with no network."""

import numpy as np
import pytest

from hf_latent.metrics import list_metrics, load_metric
from hf_latent.trees import Tree, attachment_score


def test_attachment_score():
    gold = [Tree(("a", "b", "c"), (2, 0, 2)), Tree(("d", "e"), (0, 1))]
    ours = [Tree(("a", "b", "c"), (0, 1, 2)), Tree(("d", "e"), (0, 0))]
    found = load_metric("attachment_score").compute(
        predictions=[tree.heads for tree in ours], references=[tree.heads for tree in gold]
    )
    assert found["attachment_score"] == pytest.approx(attachment_score(ours, gold)) == pytest.approx(2 / 5)
    assert found["undirected_attachment_score"] == pytest.approx(attachment_score(ours, gold, directed=False))
    assert found["undirected_attachment_score"] == pytest.approx(3 / 5)


def test_attachment_score_of_words_that_are_known():
    metric = load_metric("attachment_score")
    found = metric.compute(predictions=[[2, 0, 2]], references=[[2, -100, 1, -100]])
    assert found["attachment_score"] == 0.5
    with pytest.raises(ValueError, match="a head for each word"):
        metric.compute(predictions=[[2, 0]], references=[[2, 0, 1]])
    with pytest.raises(ValueError, match="nothing to score"):
        metric.compute(predictions=[[0]], references=[[-100]])


def test_v_measure():
    found = load_metric("v_measure").compute(predictions=[5, 5, 7, 7], references=[0, 0, 1, 1])
    assert found == {"homogeneity": 1.0, "completeness": 1.0, "v_measure": 1.0}
    assert load_metric("v_measure").compute(predictions=[0, 0, 0, 0], references=[0, 0, 1, 1])["v_measure"] == 0.0


def test_tree_depth():
    found = load_metric("tree_depth").compute(predictions=[[0, 1, 2], [0, 0], [2, 0, 2]])
    assert found == {"depth": pytest.approx((3 + 1 + 2) / 3), "flat": pytest.approx(2 / 3)}


def test_rationale_faithfulness():
    """Of the class that the whole text has: the first text's is 1, the second's 0."""
    metric = load_metric("rationale_faithfulness")
    whole, without, alone = [[0.1, 0.9], [0.8, 0.2]], [[0.6, 0.4], [0.7, 0.3]], [[0.2, 0.8], [0.9, 0.1]]
    found = metric.compute(predictions=whole, without=without, alone=alone)
    assert found == {"comprehensiveness": pytest.approx((0.5 + 0.1) / 2), "sufficiency": pytest.approx((0.1 - 0.1) / 2)}
    for name, wrong in (
        ("without", [[0.6], [1.0]]),
        ("alone", [[np.nan, 0.5], [1.0, 0.0]]),
        ("predictions", [[2.0, -1.0]] * 2),
    ):
        given = {"predictions": whole, "without": without, "alone": alone, name: wrong}
        with pytest.raises(ValueError, match=f"`{name}` must"):
            metric.compute(**given)
    with pytest.raises(ValueError, match="`predictions` are of no texts"):
        metric.compute(predictions=[], without=[], alone=[])


def test_metrics_that_are_not_there():
    assert list_metrics() == ["attachment_score", "parsing_score", "rationale_faithfulness", "tree_depth", "v_measure"]
    with pytest.raises(ValueError, match=r"Unknown metric 'bleu'\. The known ones are: attachment_score"):
        load_metric("bleu")


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[0]], [[5]], "`references` must be heads between 0 .* got 5 for word 1 of sentence 0"),
        ([[0], [0, 1]], [[0], [0, -1]], "`references` .* got -1 for word 2 of sentence 1"),
        ([[7, 0]], [[2, 0]], "`predictions` .* got 7 for word 1 of sentence 0"),
        ([[-100, 0]], [[2, 0]], "`predictions` .* got -100"),
        ([[None, 0]], [[2, 0]], "`predictions` .* got None"),
        ([[2, 0]], [[2, None]], "`references` .* got None"),
        ([None], [[0]], "got None for sentence 0"),
        ([[0]], [[2, -100]], "`references` .* got 2"),  # the head has no prediction
        ([], [], "nothing to score"),
        ([[]], [[]], "nothing to score"),
    ],
)
def test_heads_that_cannot_be_scored(predictions, references, message):
    with pytest.raises(ValueError, match=message):  # by ours alone: after an error, `evaluate` waits a second for its own lock
        load_metric("attachment_score")._compute(predictions, references)


def test_padded_arrays_are_scored():
    ours, gold = np.array([[2, 0, -100], [0, 1, 2]]), np.array([[2, 0, -100], [0, 1, 1]])
    found = load_metric("attachment_score").compute(predictions=ours, references=gold)
    assert found == {"attachment_score": 4 / 5, "undirected_attachment_score": 4 / 5}
    assert load_metric("tree_depth").compute(predictions=ours) == {"depth": 2.5, "flat": 0.5}


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "no words"),
        ([[]], "no words"),
        ([[-100]], "no words"),
        ([[0], [2, 1]], "no tree in sentence 1: .* form a tree"),
        ([[0], [7]], "no tree in sentence 1: .* got .7"),
        ([[-100, 0]], "no tree in sentence 0"),
        ([[0, None]], "got .*None.* for sentence 0"),
    ],
)
def test_trees_without_a_depth(predictions, message):
    with pytest.raises(ValueError, match=f"`predictions` .*{message}"):
        load_metric("tree_depth")._compute(predictions)


def test_clusters_that_cannot_be_compared():
    metric = load_metric("v_measure")
    with pytest.raises(ValueError, match="`references` have no classes"):
        metric._compute([], [])
    with pytest.raises(ValueError, match="`references` have no classes"):
        metric._compute([1], [-100])
    with pytest.raises(ValueError, match="`predictions` must be integers, got None for example 1"):
        metric._compute([1, None], [1, 1])
    assert metric.compute(predictions=np.array([1, 1, 2]), references=np.array([3, -100, 4]))["v_measure"] == 1
