"""Tagging as an example: words that are given, their labels, and data that does not fit."""

import gzip
import json

import pytest
import test_examples
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value

# Their fixtures: an example run in this process, and word vectors.
run, files = test_examples.run, test_examples.files

SENTENCES = [
    [("a", "DET"), ("good", "ADJ"), ("film.", "NOUN")],
    [("not", "PART"), ("unwatchable", "ADJ")],
    [("a", "DET"), ("very", "ADV"), ("bad", "ADJ"), ("film", "NOUN")],
]
TAGS = sorted({tag for sentence in SENTENCES for _, tag in sentence})


@pytest.fixture(autouse=True)
def one_thread():
    """The networks are so small that a second thread would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def conllu(sentences: list[list[tuple[str, str]]]) -> str:
    """Each word hangs from the one before it."""
    rows = [
        [f"{place + 1}\t{word}\t_\t{tag}\t_\t_\t{place}\t_\t_\t_" for place, (word, tag) in enumerate(sentence)]
        for sentence in sentences
    ]
    return "".join("# 1\tno word\n" + "\n".join(lines) + "\n\n" for lines in rows)


@pytest.fixture
def treebank(files):
    """Training and validation files beside the word vectors."""
    with gzip.open(files / "train.conllu.gz", "wt", encoding="utf-8") as file:
        file.write(conllu(SENTENCES * 20))
    (files / "dev.conllu").write_text(conllu(SENTENCES))
    return files


def arguments(folder, **options) -> list[object]:
    given = {"train_file": folder / "train.conllu.gz", "validation_file": folder / "dev.conllu"}
    given |= {"num_train_epochs": 20, "learning_rate": 1e-2, "output_dir": folder / "out", "use_cpu": True} | options
    return [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]


@pytest.fixture
def example(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(test_examples.EXAMPLES))
    import token_classification

    return token_classification


@pytest.mark.parametrize(("estimator", "sampling"), [("none", "group_by_length"), ("spigot_eg", "random")])
def test_tags_are_learned_with_word_vectors(run, treebank, capsys, estimator, sampling):
    vectors = treebank / "vectors.txt"
    vectors.write_text(vectors.read_text() + "film. 1 0 1 0 1 0 1 0\nunwatchable 0 1 0 1 0 1 0 1\nvery 1 1 0 0 1 1 0 0\n")
    run(
        "token_classification",
        *arguments(treebank, word_vectors=vectors, estimator=estimator, test_file=treebank / "dev.conllu"),
        *("--train_sampling_strategy", sampling),
    )
    results = json.loads((treebank / "out" / "results.json").read_text())
    assert results["validation_accuracy"] == results["test_accuracy"] == 1
    assert [results[f"validation_f1_{tag}"] for tag in TAGS] == [1] * len(TAGS)
    printed = capsys.readouterr().out
    assert ("ROOT" in printed) == (estimator != "none")
    assert all(f"{word}/{tag}" in printed for sentence in SENTENCES for word, tag in sentence)
    config = json.loads((treebank / "out" / "config.json").read_text())
    assert list(config["id2label"].values()) == TAGS
    assert config["architectures"] == ["LatentTreeForTokenClassification"]
    assert "token-classification" in (treebank / "out" / "README.md").read_text()


def test_tags_are_learned_with_a_transformer(run, treebank, tiny_bert, wordpiece, capsys):
    """Its tokens are not the words: "film." and "unwatchable" have several."""
    tiny_bert.save_pretrained(treebank / "encoder")
    wordpiece.save_pretrained(treebank / "encoder")
    run("token_classification", *arguments(treebank, encoder=treebank / "encoder", estimator="marginals"))
    assert json.loads((treebank / "out" / "results.json").read_text())["validation_accuracy"] == 1
    printed = capsys.readouterr().out
    assert all(f" {word}/{tag}" in printed for sentence in SENTENCES for word, tag in sentence)


def test_a_treebank_with_more_than_words_in_it(example, tmp_path):
    lines = conllu([[("des", "ADP"), ("films", "NOUN")]]).splitlines()
    lines[1:1] = ["1-2\tdes\t_\t_\t_\t_\t_\t_\t_\t_"]
    lines[3:3] = ["1.1\tles\t_\tDET\t_\t_\t_\t_\t_\t_"]
    (tmp_path / "train.conllu").write_text("\ufeff" + "\n".join(lines[1:]) + "\n")
    assert example.read_tags(tmp_path / "train.conllu").to_dict() == {"words": [["des", "films"]], "labels": [["ADP", "NOUN"]]}


@pytest.fixture
def hub_dataset(files):
    """A dataset with two columns of labels, numbers with names and strings, as `load_dataset` takes it."""
    rows = {"tokens": [["a", "good", "film"], ["not", "bad"]] * 10, "tags": [["O", "O", "B"], ["O", "O"]] * 10}
    rows |= {"ner_tags": [[2, 2, 0], [2, 2]] * 10, "short": [["O"], ["O"]] * 10}
    strings = Sequence(Value("string"))
    features = {"tokens": strings, "tags": strings, "short": strings, "ner_tags": Sequence(ClassLabel(names=["B", "I", "O"]))}
    (files / "dataset").mkdir()
    for split in ("train", "validation", "test"):
        Dataset.from_dict(rows, Features(features)).to_parquet(files / "dataset" / f"{split}.parquet")
    return files


@pytest.mark.parametrize(("column", "names"), [("ner_tags", ["B", "I", "O"]), ("tags", ["B", "O"])])
def test_a_dataset(run, hub_dataset, column, names):
    options = {"dataset_name": hub_dataset / "dataset", "labels_column": column, "word_vectors": hub_dataset / "vectors.txt"}
    run("token_classification", *arguments(hub_dataset, train_file=None, validation_file=None, **options))
    assert json.loads((hub_dataset / "out" / "results.json").read_text())["test_accuracy"] == 1
    assert list(json.loads((hub_dataset / "out" / "config.json").read_text())["id2label"].values()) == names


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"labels_column": "labels"}, r"The train data has no column 'labels' .* are: tokens, "),
        ({"labels_column": "short"}, r"has 3 words and 1 labels in sentence 0"),
    ],
)
def test_columns_that_do_not_fit(run, hub_dataset, option, message):
    given = {"dataset_name": hub_dataset / "dataset", "word_vectors": hub_dataset / "vectors.txt"} | option
    with pytest.raises(SystemExit, match=message):
        run("token_classification", *arguments(hub_dataset, train_file=None, validation_file=None, **given))


def test_a_dataset_without_validation_data(run, hub_dataset):
    (hub_dataset / "dataset" / "validation.parquet").unlink()
    given = {"dataset_name": hub_dataset / "dataset", "word_vectors": hub_dataset / "vectors.txt"}
    with pytest.raises(SystemExit, match="has no validation data; it has train, test"):
        run("token_classification", *arguments(hub_dataset, train_file=None, validation_file=None, **given))


def test_data_that_cannot_be_learned_from(run, treebank):
    given = arguments(treebank, word_vectors=treebank / "vectors.txt")
    (treebank / "dev.conllu").write_text(conllu([[("film", "X")]]))
    with pytest.raises(SystemExit, match=r"The validation data has the label 'X', which the training data \(ADJ, ADV"):
        run("token_classification", *given)
    (treebank / "dev.conllu").write_text("film\n")
    with pytest.raises(ValueError, match=r"dev.conllu, sentence 1, line 1: expected word 1 in ten columns"):
        run("token_classification", *given)
    (treebank / "dev.conllu").unlink()
    with pytest.raises(FileNotFoundError, match="No CoNLL-U file"):
        run("token_classification", *given)
    with gzip.open(treebank / "train.conllu.gz", "wt") as file:
        file.write(conllu([[("film", "_"), ("good", "_")]]))
    (treebank / "dev.conllu").write_text(conllu(SENTENCES))
    with pytest.raises(SystemExit, match=r"has one label only, '_'"):
        run("token_classification", *given)


def test_what_is_missing_is_said(run, treebank):
    with pytest.raises(SystemExit, match="Pass either --encoder"):
        run("token_classification", *arguments(treebank))
    with pytest.raises(SystemExit, match="Pass --train_file and --validation_file, or --dataset_name"):
        run("token_classification", *arguments(treebank, validation_file=None))
