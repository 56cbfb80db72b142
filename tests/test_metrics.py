"""Metrics, loaded with no network."""

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


def test_metrics_that_are_not_there():
    assert list_metrics() == ["attachment_score", "tree_depth", "v_measure"]
    with pytest.raises(ValueError, match=r"Unknown metric 'bleu'\. The known ones are: attachment_score"):
        load_metric("bleu")
