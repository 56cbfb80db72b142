"""UAS, LAS and CLAS, against counts by hand."""

import numpy as np
import pytest
from transformers import EvalPrediction

from hf_latent.metrics import load_metric
from hf_latent.training import parsing_metrics
from hf_latent.trees import Tree, parsing_scores, parsing_scores_of_trees, read_conllu

# "the film that she saw works ."
GOLD_HEADS = [2, 6, 5, 5, 2, 0, 6]
GOLD_RELATIONS = ["det", "nsubj", "obj", "nsubj", "acl:relcl", "root", "punct"]
HEADS = [2, 6, 5, 6, 2, 0, 5]
RELATIONS = ["det", "nsubj", "mark", "nsubj", "acl", "root", "punct"]


def test_scores_by_hand():
    """Right heads: all but "she" and the full stop. Right relations at them: all but "that", which is `mark` here."""
    found = parsing_scores([HEADS], [GOLD_HEADS], [RELATIONS], [GOLD_RELATIONS])
    # Of content words: five in the gold tree, four found (`mark` is none); "film", "saw", "works" are right.
    assert found == {"uas": 5 / 7, "las": 4 / 7, "clas": pytest.approx(2 * 3 / (5 + 4))}
    with_subtypes = parsing_scores([HEADS], [GOLD_HEADS], [RELATIONS], [GOLD_RELATIONS], subtypes=True)
    assert with_subtypes == {"uas": 5 / 7, "las": 3 / 7, "clas": pytest.approx(2 * 2 / 9)}
    without = parsing_scores([HEADS], [GOLD_HEADS], [RELATIONS], [GOLD_RELATIONS], punctuation=False)
    assert without == {"uas": 5 / 6, "las": 4 / 6, "clas": pytest.approx(6 / 9)}
    assert parsing_scores([HEADS], [GOLD_HEADS]) == {"uas": 5 / 7}


def test_words_and_not_sentences_are_counted():
    found = parsing_scores([HEADS, [0]], [GOLD_HEADS, [0]], [RELATIONS, ["root"]], [GOLD_RELATIONS, ["root"]])
    assert found["uas"] == 6 / 8
    assert parsing_scores([[1, 1]], [[0, 1]])["uas"] == 0.5  # no tree, and scored all the same


def test_what_is_not_known_does_not_count():
    gold = [-100, *GOLD_HEADS[1:], -100, -100]
    assert parsing_scores([HEADS], [gold])["uas"] == 4 / 6
    with pytest.raises(ValueError, match="no words that count"):
        parsing_scores([HEADS], [[-100] * 7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [[0]]), "`predicted_heads` must be of the 1 sentences that have gold heads, got 0"),
        (([[0]], [[0, 1]]), "`predicted_heads` must be of 2 words in sentence 0, got 1"),
        (([[0]], [[0]], [["root"]]), "must be given both, or neither"),
        (([[0]], [[0]], [[]], [["root"]]), "`predicted_relations` must be of 1 words in sentence 0, got 0"),
        (([[0]], [[0]], None, None, False), "`punctuation=False` needs `gold_relations`"),
    ],
)
def test_what_cannot_be_scored(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsing_scores(*arguments)


def test_trees():
    words = ("the", "film", "that", "she", "saw", "works", ".")
    gold = Tree(words, GOLD_HEADS, relations=GOLD_RELATIONS)
    ours = Tree(words, [2, 6, 5, 6, 2, 0, 5], relations=RELATIONS)
    assert parsing_scores_of_trees([ours], [gold]) == parsing_scores([HEADS], [GOLD_HEADS], [RELATIONS], [GOLD_RELATIONS])
    assert parsing_scores_of_trees([Tree(words, HEADS)], [gold]) == {"uas": 5 / 7}
    with pytest.raises(ValueError, match="must be over the same words, but are not in sentence 0"):
        parsing_scores_of_trees([Tree(("a",), (0,))], [gold])


def test_for_evaluate():
    metric = load_metric("parsing_score")
    ours, gold = {"heads": HEADS, "relations": RELATIONS}, {"heads": GOLD_HEADS, "relations": GOLD_RELATIONS}
    expected = parsing_scores([HEADS], [GOLD_HEADS], [RELATIONS], [GOLD_RELATIONS])
    assert metric.compute(predictions=[ours], references=[gold]) == expected
    assert metric.compute(predictions=[ours], references=[gold], punctuation=False)["uas"] == 5 / 6


def test_for_the_trainer():
    """Arrays as it has them, padded with -100."""
    names = sorted({*RELATIONS, *GOLD_RELATIONS})
    arrays = []
    for heads, relations in ((HEADS, RELATIONS), (GOLD_HEADS, GOLD_RELATIONS)):
        numbers = [names.index(relation) for relation in relations]
        padded = [[*heads, -100, -100], [0, *[-100] * 8]], [[*numbers, -100, -100], [names.index("root"), *[-100] * 8]]
        arrays.append(tuple(map(np.array, padded)))
    found = parsing_metrics(dict(enumerate(names)))(EvalPrediction(predictions=arrays[0], label_ids=arrays[1]))
    assert found == parsing_scores([HEADS, [0]], [GOLD_HEADS, [0]], [RELATIONS, ["root"]], [GOLD_RELATIONS, ["root"]])
    arrays[1][1][0, 3:] = -100
    found = parsing_metrics(dict(enumerate(names)))(EvalPrediction(predictions=arrays[0], label_ids=arrays[1]))
    # Heads count of all words; relations of those that have one: of "the", "film", "that" and the other sentence's word.
    assert found == {"uas": 6 / 8, "las": 3 / 4, "clas": pytest.approx(2 * 2 / (2 + 3))}
    arrays[1][1][:] = -100
    found = parsing_metrics(dict(enumerate(names)))(EvalPrediction(predictions=arrays[0], label_ids=arrays[1]))
    assert found == {"uas": 6 / 8}


def test_scores_of_a_treebank_against_itself(data_dir):
    """Each word right; and flat trees right where words hang from ROOT, as many as there are sentences."""
    gold = read_conllu(data_dir / "ud-ewt" / "en_ewt-ud-dev.conllu.gz")
    assert parsing_scores_of_trees(gold, gold) == {"uas": 1.0, "las": 1.0, "clas": 1.0}
    flat = [Tree(tree.words, (0,) * len(tree.words)) for tree in gold]
    assert parsing_scores_of_trees(flat, gold)["uas"] == 2001 / sum(len(tree.words) for tree in gold)
