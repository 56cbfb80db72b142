"""The examples run as printed, on small data made here, and on real data where it is at hand."""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from hf_latent import LatentTreeForSequenceClassification
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.trees import Tree, attachment_score, read_conllu, write_conllu

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch):
    """Runs an example in this process, as `python examples/NAME.py ARGUMENTS` would."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.syspath_prepend(str((EXAMPLES / name).parent))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return run


@pytest.fixture
def files(tmp_path):
    """A tiny sentiment corpus and word vectors for it."""
    lines = ["a good film\t1", "a bad film\t0", "not a bad film\t1", "not a good film\t0"] * 4
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    words = ["a", "good", "bad", "film", "not"]
    generator = torch.Generator().manual_seed(0)
    vectors = [f"{word} " + " ".join(f"{x:.3f}" for x in torch.randn(8, generator=generator)) for word in words]
    (tmp_path / "vectors.txt").write_text("\n".join(vectors) + "\n")
    return tmp_path


def arguments(folder: Path, **options: object) -> list[object]:
    given = {"train_file": folder / "train.tsv", "validation_file": folder / "dev.tsv", "test_file": folder / "test.tsv"}
    given |= {"num_train_epochs": 1, "output_dir": folder / "out", "use_cpu": True} | options
    return [part for name, value in given.items() for part in (f"--{name}", value)]


@pytest.mark.parametrize("estimator", ["none", "spigot_eg"])
def test_text_classification_with_word_vectors(run, files, capsys, estimator):
    run("text_classification", *arguments(files, word_vectors=files / "vectors.txt", estimator=estimator))
    results = json.loads((files / "out" / "results.json").read_text())
    assert 0 <= results["test_accuracy"] <= 1
    assert (files / "out" / "model.safetensors").is_file()
    assert ("ROOT" in capsys.readouterr().out) == (estimator != "none")
    assert "On the validation split" in (files / "out" / "README.md").read_text()
    cards = ["--name", "someone/films", "--example", "a good film", "--output_dir", files / "card"]
    run("model_card", "--model", files / "out", *cards)
    card = (files / "card" / "README.md").read_text()
    assert "On the test split" in card
    assert ("tree.svg" in card) == (estimator != "none")
    with pytest.raises(SystemExit):
        run("model_card", "--model", files, *cards)
    assert "holds no trained model" in capsys.readouterr().err
    for content in ("{cut off", '{"architectures": ["BertModel"]}', '{"architectures": null}', "[]"):
        (files / "out" / "config.json").write_text(content)
        with pytest.raises(SystemExit):
            run("model_card", "--model", files / "out", *cards)
        assert "holds no model of ours, or files that are damaged" in capsys.readouterr().err


def test_text_classification_with_a_transformer(run, files, tiny_bert, wordpiece):
    tiny_bert.save_pretrained(files / "encoder")
    wordpiece.save_pretrained(files / "encoder")
    run("text_classification", *arguments(files, encoder=files / "encoder", estimator="marginals"))
    assert (files / "out" / "results.json").is_file()


@pytest.mark.parametrize("estimator", ["none", "spigot"])
def test_natural_language_inference(run, files, capsys, estimator):
    lines = ["id\tfirst\tsecond\tlabel"] + [
        f"1\ta {one} film\tNot a {two} film.\t{'YES' if one != two else 'NO'}"
        for one in ("good", "bad")
        for two in ("good", "bad")
    ] * 3
    for name in ("train", "dev", "test"):
        (files / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    columns = ["--text_columns", "first", "second"]
    run("natural_language_inference", *arguments(files, word_vectors=files / "vectors.txt", estimator=estimator), *columns)
    results = json.loads((files / "out" / "results.json").read_text())
    assert 0 <= results["test_accuracy"] <= 1
    assert ("ROOT" in capsys.readouterr().out) == (estimator != "none")
    config = json.loads((files / "out" / "config.json").read_text())
    assert config["architectures"] == ["LatentTreeForPairClassification"]
    assert '{"text": "a good film", "text_pair": "Not a good film."}' in (files / "out" / "README.md").read_text()
    assert config["text_config"]["num_hidden_layers"] == 0


def test_draw_trees(run, tmp_path, tiny_bert, wordpiece, capsys):
    pytest.importorskip("resvg_py")
    for estimator in ("spigot", "marginals"):
        model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
        model.save_pretrained(tmp_path / estimator)
        wordpiece.save_pretrained(tmp_path / estimator)
    (tmp_path / "texts.tsv").write_text("a good film\t1\na bad film .\t0\n")
    models = ["--models", tmp_path / "spigot", tmp_path / "marginals"]
    write_conllu([Tree(("a", "good", "film"), (3, 3, 0))], tmp_path / "gold.conllu")
    files = ["--texts_file", tmp_path / "texts.tsv", "--gold_file", tmp_path / "gold.conllu"]
    with pytest.raises(SystemExit):
        run("draw_trees", *models, "--names", "a", "../b", "--output_dir", tmp_path / "out")
    assert "fit for files" in capsys.readouterr().err
    run("draw_trees", *models, *files, "--output_dir", tmp_path / "out")
    assert (tmp_path / "out" / "trees.png").stat().st_size > 10_000
    assert len(read_conllu(tmp_path / "out" / "marginals.conllu")) == 3
    assert (tmp_path / "out" / "statistics.md").read_text().count("\n") == 4
    compared = (tmp_path / "out" / "attachment.md").read_text()
    assert "| gold | 1.000 | 1.000 |" in compared
    assert "| flat | 0.333 | 0.333 |" in compared
    assert "| marginals |" in compared
    assert "ROOT" in capsys.readouterr().out


def test_dependency_parsing(run, tmp_path, capsys):
    """Trees and relations are learned when they are told; the model comes with its card and what it predicts."""
    trees = [
        Tree(("a", "good", "film"), (3, 3, 0), relations=("det", "amod", "root")),
        Tree(("films", "are", "good"), (3, 3, 0), relations=("nsubj", "cop", "root")),
        Tree(("good", "film"), (2, 0), relations=("amod", "root")),
    ]
    write_conllu(trees * 30, tmp_path / "train.conllu")
    write_conllu(trees, tmp_path / "dev.conllu")
    words = "\n".join(f"{word} {place} {place % 2} 1 0" for place, word in enumerate(["a", "good", "film", "films", "are"]))
    (tmp_path / "vectors.txt").write_text(words + "\n")
    files = ["--train_file", tmp_path / "train.conllu", "--validation_file", tmp_path / "dev.conllu"]
    options = ["--word_vectors", tmp_path / "vectors.txt", "--epochs", 6]
    run("dependency_parsing", *files, *options, "--output_dir", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["attachment_score"]["parser"] > 0.9 > results["attachment_score"]["flat"]
    assert results["by_epoch"][-1]["las"] > 0.9
    assert results["decoding"]["non-projective, one root"]["las"] == results["by_epoch"][-1]["las"]
    assert [name for name, row in results["decoding"].items() if row["no tree"] == 0][-4:] == list(results["decoding"])[1:]
    found = read_conllu(tmp_path / "out" / "predicted.conllu", single_root=True)
    assert attachment_score(found, trees) == results["attachment_score"]["parser"]
    assert 'pipeline("dependency-parsing"' in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "decoding.md").read_text().count("%") == 15
    assert "Attachment score" in capsys.readouterr().out
    # A dataset as the Hub has them.
    (tmp_path / "data").mkdir()
    rows = [{"tokens": tree.words, "head": list(map(str, tree.heads)), "deprel": tree.relations} for tree in trees]
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run("dependency_parsing", "--dataset", tmp_path / "data", *options[:2], "--epochs", 1, "--output_dir", tmp_path / "other")
    assert len(read_conllu(tmp_path / "other" / "predicted.conllu")) == 3
    with pytest.raises(SystemExit):
        run("dependency_parsing", *options, "--dataset", "x", *files)
    assert "pass --train_file and --validation_file, or --dataset" in capsys.readouterr().err


def test_the_cost_of_a_training_step(run, tmp_path, capsys):
    (tmp_path / "train.tsv").write_text("a good film\t1\na bad film\t0\nnot a bad film\t1\n" * 20)
    (tmp_path / "pairs.tsv").write_text("one\ttwo\tlabel\n" + "a good film\tnot a film\t1\n" * 70)
    files = ["--sentences", tmp_path / "train.tsv", "--pairs", tmp_path / "pairs.tsv", "--pair_columns", "one", "two"]
    run("benchmarks/training_step", *files, "label", "--steps", 2, "--output_dir", tmp_path)
    found = json.loads((tmp_path / "training_step.json").read_text())["milliseconds"]
    assert all(value > 0 for times in found.values() for both in times.values() for value in both)
    assert len(found) == 2
    assert "| spigot_ce |" in capsys.readouterr().out


def test_compare_estimators_keeps_what_it_has(run, files, capsys):
    given = arguments(files, word_vectors=files / "vectors.txt")
    given = [part for pair in zip(given[::2], given[1::2], strict=True) if pair[0] != "--output_dir" for part in pair]
    command = ["--output_dir", files / "table", "--estimators", "none", "--seeds", 1, "--", *given]
    run("compare_estimators", *command)
    first = (files / "table" / "none-1" / "results.json").stat().st_mtime_ns
    run("compare_estimators", *command)
    assert (files / "table" / "none-1" / "results.json").stat().st_mtime_ns == first
    assert "| none" in (files / "table" / "results.md").read_text()
    with pytest.raises(SystemExit, match="holds a run with other arguments"):
        run("compare_estimators", *command, "--learning_rate", 0.5)


def test_compare_estimators_chooses_the_learning_rate(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import compare_estimators as compare

    found = {0.1: [0.5, 0.9], 0.01: [0.8, 0.8], 0.001: [0.6, 0.6]}
    runs = [
        {"estimator": "spigot", "learning_rate": rate, "validation_accuracy": value, "test_accuracy": 1.0, "train_seconds": 1.0}
        for rate, values in found.items()
        for value in values
    ]
    assert [run["learning_rate"] for run in compare.chosen(runs)] == [0.01, 0.01]
    assert "| spigot          | 0.01 |   80.0 ± 0.0 |" in compare.table(runs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", "", r"train.tsv is empty: there is nothing to learn from"),
        ("train", "text\tlabel\n", r"The train data is empty"),
        ("train", "a film\t1\n", r"has one label only, '1'"),
        (
            "train",
            "sentence\tlabel\na film\t1\na bad film\t0\n",
            r"The train data has no column 'text'; it has sentence, label",
        ),
        ("train", "a film\t1\n\nfilm\n", r"train.tsv, entry 2: expected 2 fields \(text, label\), got 1"),
        ("dev", "a film\t7\n", r"The validation data has the label '7', which the training data \(0, 1\) does not"),
    ],
)
def test_data_that_cannot_be_learned_from(run, files, name, content, message):
    (files / f"{name}.tsv").write_text(content)
    with pytest.raises(SystemExit, match=message):
        run("text_classification", *arguments(files, word_vectors=files / "vectors.txt"))


def test_text_classification_says_what_is_missing(run, files):
    with pytest.raises(SystemExit, match="Pass either --encoder"):
        run("text_classification", *arguments(files))
    with pytest.raises(SystemExit, match="Pass --train_file and --validation_file, or --dataset_name"):
        run("text_classification", "--output_dir", files / "out", "--word_vectors", files / "vectors.txt")
    with pytest.raises(SystemExit, match=r"--estimator must be 'none' or one of blackbox, .*, got 'spigott'"):
        run("text_classification", *arguments(files, word_vectors=files / "vectors.txt", estimator="spigott"))
    with pytest.raises(SystemExit, match=r"--encoder .*absent cannot be loaded"):
        run("text_classification", *arguments(files, encoder=files / "absent"))
    with pytest.raises(SystemExit, match="No file at"):
        run("text_classification", *arguments(files, train_file=files / "absent.tsv", word_vectors=files / "vectors.txt"))


def test_the_little_language_cannot_be_had_without_its_trees(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from little_language import generate, harmony

    corpus = generate(400, seed=1)
    assert corpus == generate(400, seed=1)
    assert Counter(sentence.label for sentence in corpus) == {0: 200, 1: 200}
    balance = Counter()
    for sentence in corpus:
        assert is_tree(torch.tensor([sentence.heads]), projective=True, single_root=True)
        assert sentence.label == (harmony(sentence.words, sentence.heads) > 0)
        balance[tuple(sorted(sentence.words))] += 1 if sentence.label else -1
    assert not any(balance.values())  # a bag of words has as many sentences of either label


def test_real_sentences(run, data_dir, tmp_path):
    """Some sentences of SST-2 with real word vectors, through the script."""
    for split, count in (("train", 1500), ("dev", 200), ("test", 100)):
        lines = (data_dir / "sst2" / f"{split}.tsv").read_text().splitlines()[:count]
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    vectors = data_dir / "minilm-words.100d.txt.gz"
    run("text_classification", *arguments(tmp_path, word_vectors=vectors, estimator="spigot", num_train_epochs=3))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["validation_accuracy"] > 0.6  # well above chance


@pytest.mark.slow
def test_demo(run, tmp_path):
    run("demo", "--output_dir", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["accuracy"]["with a latent tree"] > 0.9
    assert results["attachment_score"]["latent trees"] > 0.9
    assert results["accuracy"]["the same network without a tree"] == pytest.approx(0.5, abs=0.05)
    assert (tmp_path / "trees.svg").is_file()


def test_the_benchmark_measures_what_is_installed(run, tmp_path, capsys):
    run("benchmarks/inference", "--output_dir", tmp_path, "--sizes", "2x3", "3x4", "--seconds", "0.02")
    rows = json.loads((tmp_path / "inference.json").read_text())["rows"]
    assert {(row["batch"], row["n"]) for row in rows} == {(2, 3), (3, 4)}
    assert all(row["milliseconds"]["hf_latent"] > 0 for row in rows)
    assert any(isinstance(row["milliseconds"].get("torch-struct"), float) for row in rows)
    table = (tmp_path / "inference.txt").read_text().split("\n\n")[0].splitlines()
    assert len({line.index("batch × n") for line in table[:1]}) == 1
    assert "hf_latent" in capsys.readouterr().out


def test_segmentations_are_measured_beside_torch_struct(run, capsys):
    run("benchmarks/segments", "--sizes", "2x5x3x2", "--turns", 1)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["hf_latent", "torch-struct"]
    assert len(lines) == 3
    assert all(line.endswith("x") for line in lines)


@pytest.mark.slow
def test_two_checkouts_are_compared(run, capsys):
    checkout = Path(__file__).parents[2]
    run("benchmarks/versions", "--before", checkout, "--turns", 1, "inference", "--sizes", "1x2", "--seconds", "0.01")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["before", "after", "ratio"]
    assert any(line.startswith("1 × 2, non-projective marginals + backward") for line in lines)
    assert all(line.endswith("×") for line in lines)


def test_a_structure_of_the_users_own(run, capsys):
    run("custom_structure", "--steps", 400)
    printed = capsys.readouterr().out
    assert "answers that are right  100.0%" in printed
    assert "rightly  100.0%" in printed


def test_an_estimator_of_the_users_own(run, capsys):
    from hf_latent.estimators import estimator

    run("custom_estimator")
    del estimator._REGISTRY["marginal_step"]
    rows = dict(line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert float(rows["marginal_step"]) > 0.7
