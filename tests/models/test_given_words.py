"""Words that are given: their features, their batches, and what is learned from them."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import (
    Trainer,
    TrainingArguments,
)

from hf_latent import (
    DataCollatorForLatentTrees,
    LatentTreeForPairClassification,
    LatentTreeForTokenClassification,
    encode_words,
    parse,
)

# [CLS] not un ##watch ##able film . [SEP], of which the last word is "film.".
WORDS, HEADS, LABELS = ["not", "unwatchable", "film."], [2, 3, 0], [1, 0, 2]
TOKENS, WORD_IDS = 8, [-1, 0, 1, 1, 1, 2, 2, -1]


@pytest.fixture
def side(wordpiece):
    """Leaves the tokenizer as it was."""
    yield lambda name, value: setattr(wordpiece, f"{name}_side", value)
    wordpiece.padding_side = wordpiece.truncation_side = "right"


def test_the_features_of_a_sentence(wordpiece):
    features = encode_words(wordpiece, WORDS, HEADS, LABELS)
    assert features["input_ids"] == wordpiece("not unwatchable film.")["input_ids"]
    assert features["word_ids"] == WORD_IDS
    assert features["heads"] == HEADS
    assert features["labels"] == [-100, 1, 0, -100, -100, 2, -100, -100]
    assert encode_words(wordpiece, WORDS, labels=3)["labels"] == 3
    assert encode_words(wordpiece, WORDS, labels=[0.5, 1.5])["labels"] == [0.5, 1.5]
    assert encode_words(wordpiece, WORDS).keys() == wordpiece("a").keys() | {"word_ids"}
    assert encode_words(wordpiece, [])["word_ids"] == [-1, -1]


def test_the_features_of_a_batch_are_those_of_its_sentences(wordpiece):
    words = [WORDS, ["bad"], [], ["a", "good", "film"]]
    heads, labels = [HEADS, [0], [], None], [LABELS, None, [], [0, 1, -100]]
    batch = encode_words(wordpiece, words, heads, labels)
    alone = [
        encode_words(wordpiece, one, tree or [-100] * len(one), own or [-100] * len(one))
        for one, tree, own in zip(words, heads, labels, strict=True)
    ]
    assert batch == {name: [row[name] for row in alone] for name in alone[0]}
    rows = Dataset.from_dict({"words": words, "tree": heads}).map(
        lambda rows: encode_words(wordpiece, rows["words"], rows["tree"]), batched=True, batch_size=3
    )
    assert rows["heads"][:] == batch["heads"]
    assert encode_words(wordpiece, words, labels=[0, 1, None, 2])["labels"] == [0, 1, -100, 2]


def test_the_features_of_pairs(wordpiece):
    pairs = [(["a", "film."], ["bad"]), (["good"], ["not", "unwatchable"])]
    features = encode_words(wordpiece, pairs, heads=[([0, 1], [0]), (None, [2, 0])], labels=[0, 1])
    assert features["input_ids"] == wordpiece(["a film.", "good"], ["bad", "not unwatchable"])["input_ids"]
    assert features["word_ids"] == [
        [[-1, 0, 1, 1, -1, -1, -1], [-1, -1, -1, -1, -1, 0, -1]],
        [[-1, 0, -1, -1, -1, -1, -1, -1], [-1, -1, -1, 0, 1, 1, 1, -1]],
    ]
    assert features["heads"] == [[[0, 1], [0]], [[-100], [2, 0]]]
    assert features["labels"] == [0, 1]
    batch = DataCollatorForLatentTrees(wordpiece)(Dataset.from_dict(features))
    assert batch["word_ids"].shape == (2, 2, 8)
    assert batch["heads"].tolist() == [[[0, 1], [0, -100]], [[-100, -100], [2, 0]]]


@pytest.mark.parametrize(
    "column",
    [tuple, np.array, pd.Series, lambda rows: pd.Series(rows, index=range(7, 7 + len(rows))), lambda rows: iter([*rows])],
    ids=["tuple", "numpy", "pandas", "pandas with other row numbers", "iterator"],
)
def test_words_in_columns_of_any_kind(wordpiece, column):
    assert encode_words(wordpiece, column(WORDS))["word_ids"] == WORD_IDS


def test_tables_whose_rows_have_other_numbers(wordpiece):
    table = pd.DataFrame({"words": [WORDS, ["bad"]], "heads": [HEADS, [0]], "labels": [LABELS, [1]]}, index=[5, 7])
    expected = encode_words(wordpiece, [WORDS, ["bad"]], [HEADS, [0]], [LABELS, [1]])
    assert encode_words(wordpiece, table["words"], table["heads"], table["labels"]) == expected


@pytest.mark.parametrize(
    ("truncation_side", "max_length", "word_ids", "heads", "labels"),
    [
        ("right", 8, WORD_IDS, HEADS, [-100, 1, 0, -100, -100, 2, -100, -100]),
        ("right", 7, [*WORD_IDS[:6], -1], HEADS, [-100, 1, 0, -100, -100, 2, -100]),  # a part of a word is a word
        ("right", 5, [-1, 0, 1, 1, -1], [2, -100], [-100, 1, 0, -100, -100]),
        ("right", 3, [-1, 0, -1], [-100], [-100, 1, -100]),
        ("right", 2, [-1, -1], [], [-100, -100]),
        ("left", 7, [-1, 0, 0, 0, 1, 1, -1], [2, 0], [-100, 0, -100, -100, 2, -100, -100]),
        ("left", 4, [-1, 0, 0, -1], [0], [-100, 2, -100, -100]),
    ],
)
def test_what_is_cut_off_is_gone(wordpiece, side, truncation_side, max_length, word_ids, heads, labels):
    side("truncation", truncation_side)
    features = encode_words(wordpiece, WORDS, HEADS, LABELS, max_length=max_length)
    assert len(features["input_ids"]) == max_length
    assert (features["word_ids"], features["heads"], features["labels"]) == (word_ids, heads, labels)


@pytest.mark.parametrize(
    ("words", "options", "error", "message"),
    [
        ("a film", {}, TypeError, "got one string, 'a film'"),
        ([["a"], "film"], {}, TypeError, "got 'film' as sentence 1"),
        ([["a"], [["film"]]], {}, TypeError, "pairs of them, throughout; got .* as sentence 0"),
        (["a", 7], {}, TypeError, "`words` must be a list of words"),
        (["a", "", "film"], {}, ValueError, r"no token for word 1 \(''\) of 'a  film'"),
        ([["a"], ["film", " "]], {"max_length": 3}, ValueError, r"no token for word 1 \(' '\) of 'film"),
        (WORDS, {"heads": [2, 0]}, ValueError, "`heads` of sentence 0 are 2, but it has 3 words"),
        (WORDS, {"heads": [2, 0, 4]}, ValueError, "of 3 words, that of word 2 is 4"),
        (WORDS, {"heads": [2, 0, -1]}, ValueError, "of word 2 is -1"),
        (WORDS, {"heads": [2, 0, 1.5]}, ValueError, "of word 2 is 1.5"),
        (WORDS, {"labels": [1, 0]}, ValueError, "`labels` of sentence 0 are 2, but it has 3 words"),
        (WORDS, {"labels": ["DET", "ADJ", "NOUN"]}, ValueError, "must be class numbers, but sentence 0 has 'DET'"),
        ([WORDS], {"labels": [0, 1]}, ValueError, "for each of 1 sentences, got 2"),
        ([WORDS], {"heads": [HEADS, HEADS]}, ValueError, "for each of 1 sentences, got 2"),
        ([(WORDS, WORDS)], {"labels": [LABELS]}, ValueError, "one label for each pair"),
        (None, {}, TypeError, "`words` must be a list of words, got None"),
        ([WORDS, WORDS], {"labels": [LABELS, 1]}, ValueError, "`labels` of sentence 1 must be a list .* got 1"),
        ([WORDS], {"heads": [3]}, ValueError, "`heads` of sentence 0 must be a list .* got 3"),
        ([WORDS], {"labels": 1}, ValueError, "`labels` must be a list with an entry for each of 1 sentences, got 1"),
        (WORDS, {"max_length": 1}, ValueError, "at least 2, since the tokenizer adds 2 tokens by itself, got 1"),
        (WORDS, {"max_length": -1}, ValueError, "at least 2, .* got -1"),
        (WORDS, {"max_length": 4.5}, ValueError, "must be a whole number .* got 4.5"),
        ([(WORDS, WORDS)], {"max_length": 2}, ValueError, "at least 3, since the tokenizer adds 3 tokens by itself, got 2"),
        ([(WORDS, WORDS)], {"heads": [[HEADS]]}, ValueError, r"`heads\[0\]` must have an entry for each of 2"),
    ],
)
def test_words_heads_and_labels_that_do_not_fit(wordpiece, words, options, error, message):
    with pytest.raises(error, match=message):
        encode_words(wordpiece, words, **options)


# --- Batches


@pytest.mark.parametrize("kind", ["lists", "numpy", "torch"])
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_a_batch_is_padded_where_the_tokenizer_pads(wordpiece, side, padding_side, kind):
    side("padding", padding_side)
    rows = Dataset.from_dict(encode_words(wordpiece, [WORDS, ["bad"]], [HEADS, [0]], [LABELS, [1]]))
    rows = rows if kind == "lists" else rows.with_format(kind)
    batch = DataCollatorForLatentTrees(wordpiece, pad_to_multiple_of=5)([rows[0], rows[1]])
    expected = wordpiece.pad([wordpiece("not unwatchable film."), wordpiece("bad")], pad_to_multiple_of=5)
    for name, rows in expected.items():
        assert batch[name].tolist() == rows
    for name, own, fill in (
        ("word_ids", [WORD_IDS, [-1, 0, -1]], -1),
        ("labels", [[-100, 1, 0, -100, -100, 2, -100, -100], [-100, 1, -100]], -100),
    ):
        padding = [[fill] * (10 - len(row)) for row in own]
        rows = [row + more if padding_side == "right" else more + row for row, more in zip(own, padding, strict=True)]
        assert batch[name].tolist() == rows
    assert batch["heads"].tolist() == [HEADS, [0, -100, -100]]
    assert all(values.dtype == torch.long for values in batch.values())


@pytest.mark.parametrize(
    ("labels", "dtype", "shape"),
    [
        ([1, 0], torch.long, (2,)),
        ([np.int64(1), np.int64(0)], torch.long, (2,)),
        ([torch.tensor(1), torch.tensor(0)], torch.long, (2,)),
        ([0.5, 1.0], torch.float, (2,)),
        ([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]], None, (2, 3)),
        ([np.float32([0, 1]), np.float32([1, 1])], torch.float, (2, 2)),
    ],
)
@pytest.mark.parametrize("name", ["labels", "label", "label_ids"])
def test_labels_of_sentences(wordpiece, labels, dtype, shape, name):
    rows = [wordpiece("a film"), wordpiece("bad")]
    batch = DataCollatorForLatentTrees(wordpiece)([{**row, name: own} for row, own in zip(rows, labels, strict=True)])
    assert batch["labels"].shape == shape
    assert batch["labels"].dtype in ((torch.float, torch.double) if dtype is None else (dtype,))
    assert name == "labels" or name not in batch


def test_a_batch_of_sentences_without_words(wordpiece):
    bare = {"input_ids": [], "attention_mask": [], "word_ids": [], "heads": [], "labels": []}
    batch = DataCollatorForLatentTrees(wordpiece)([bare, bare])
    assert {name: (values.dtype, tuple(values.shape)) for name, values in batch.items()} == dict.fromkeys(
        bare, (torch.long, (2, 0))
    )
    both = DataCollatorForLatentTrees(wordpiece)([bare, {**encode_words(wordpiece, ["a"], [0], [1]), "token_type_ids": None}])
    assert both["labels"].tolist() == [[-100] * 3, [-100, 1, -100]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": None}, r"Example 0 of the batch has 'heads', and example 1 has not.*fill in -100"),
        ({"idx": 3}, r"Example 1 of the batch has 'idx', and example 0 has not"),
        ({"heads": [[0], [0]]}, "'heads' must be of one sentence in all examples"),
        ({"word_ids": [0, 1]}, r"'word_ids' of example 1 has shape \(2,\), but the example has 3 tokens"),
        ({"word_ids": [[-1, 0, -1]] * 2}, r"'word_ids' must have the same shape in all"),
        ({"word_ids": [None, 0, None]}, r"'word_ids' must be numbers, got \[None, 0, None\]"),
        ({"labels": [0, 1]}, r"'labels' of example 1 has shape \(2,\).*Several labels of one example are floats"),
        ({"labels": 1}, r"'labels' of example 1 has shape \(\)"),
        ({"label": 1}, r"Example 1 of the batch has labels by two names"),
        ({"label_ids": [-100, 1, -100]}, r"Example 1 of the batch has labels by two names"),
        ({"heads": [float("nan")]}, r"'heads' must be whole numbers, also where there is none \(-100\), got \[nan\]"),
        ({"heads": np.array([0.5])}, r"'heads' must be whole numbers"),
        ({"word_ids": torch.tensor([float("nan"), 0, float("nan")])}, r"'word_ids' must be whole numbers.*\(-1\)"),
        ({"labels": [-100, 1.5, -100]}, r"'labels' must be whole numbers.*\(-100\)"),
        ({"heads": 0}, r"'heads' of an example must be a list with a number for each word, got 0"),
        ({"input_ids": [[2, 8, 3]]}, r"'input_ids' of an example must be a list with a number for each token"),
    ],
)
def test_features_that_do_not_fit_each_other(wordpiece, changes, message):
    rows = [encode_words(wordpiece, ["bad"], [0], [1]) for _ in range(2)]
    rows[1] |= changes
    with pytest.raises(ValueError, match=message):
        DataCollatorForLatentTrees(wordpiece)(rows)


@pytest.mark.parametrize("features", [[], {"input_ids": [[2, 3]]}], ids=["none", "columns"])
def test_what_is_no_list_of_examples(wordpiece, features):
    with pytest.raises(ValueError, match="`features` must be a list of at least one example, got"):
        DataCollatorForLatentTrees(wordpiece)(features)


def test_whole_numbers_may_be_floats(wordpiece):
    """As tables with gaps have them."""
    row = encode_words(wordpiece, WORDS, HEADS)
    batch = DataCollatorForLatentTrees(wordpiece)([{**row, "heads": np.float64(HEADS)}])
    assert batch["heads"].dtype == torch.long
    assert batch["heads"].tolist() == [HEADS]


def test_features_that_are_no_numbers(wordpiece):
    with pytest.raises(ValueError, match=r"'text' must be numbers, got 'bad'\. Leave the feature out"):
        DataCollatorForLatentTrees(wordpiece)([{**encode_words(wordpiece, ["bad"]), "text": "bad"}])
    with pytest.raises(ValueError, match=r"must have 'input_ids', got words\. Make them with `encode_words`"):
        DataCollatorForLatentTrees(wordpiece)([{"words": ["bad"]}])
    with pytest.raises(ValueError, match="'idx' must have the same shape"):
        DataCollatorForLatentTrees(wordpiece)([{**encode_words(wordpiece, ["bad"]), "idx": idx} for idx in (1, [2])])


# --- In the Trainer


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_the_stock_trainer_learns_tags_and_trees_of_given_words(tiny_bert, wordpiece, side, tmp_path, padding_side, workers):
    side("padding", padding_side)
    words = [WORDS, ["a", "very", "bad,", "unwatchable", "film"], ["good"]]
    trees = [(2, 3, 0), (5, 3, 5, 5, 0), (0,)]
    labels = [[len(word) % 3 for word in own] for own in words]
    model = LatentTreeForTokenClassification.from_encoder(tiny_bert, wordpiece, num_labels=3, estimator="marginals")
    rows = Dataset.from_dict({"words": words, "tree": trees, "tag": labels}).map(
        lambda rows: encode_words(wordpiece, rows["words"], rows["tree"], rows["tag"]), batched=True
    )
    arguments = TrainingArguments(
        tmp_path,
        num_train_epochs=50,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=bool(workers),
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorForLatentTrees(wordpiece))
    trainer.train()
    assert [tree.heads for tree in parse(model, wordpiece, words)] == trees
    predicted = trainer.predict(rows)
    known = predicted.label_ids != -100
    assert (predicted.predictions.argmax(-1) == predicted.label_ids)[known].all()
    assert known.sum() == sum(map(len, words))


def test_pairs_of_given_words(tiny_bert, wordpiece):
    model = LatentTreeForPairClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals").eval()
    pairs = [(["a", "film."], ["bad"]), (["good"], ["not", "unwatchable"])]
    features = encode_words(wordpiece, pairs, heads=[([0, 1], [0]), (None, [2, 0])], labels=[0, 1])
    output = model(**DataCollatorForLatentTrees(wordpiece)(Dataset.from_dict(features)))
    assert output.num_words.tolist() == [[2, 1], [1, 2]]
    assert output.loss.isfinite()
    # Read off the tokens, "film" and "." are two.
    with pytest.raises(ValueError, match=r"heads\[0, 0\] are of 2 words, but 3 were read off its tokens.*encode_words"):
        model(
            **wordpiece(["a film.", "good"], ["bad", "bad"], padding=True, return_tensors="pt"),
            heads=torch.tensor([[[0, 1], [0, -100]]] * 2),
        )
