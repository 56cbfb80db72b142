"""A little supervision: which sentences are learned from, and the table."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "little_supervision"
SENTENCES = [
    (("a", "good", "film"), ("DET", "ADJ", "NOUN"), (3, 3, 0)),
    (("not", "bad"), ("PART", "ADJ"), (2, 0)),
    (("a", "very", "bad", "film", "."), ("DET", "ADV", "ADJ", "NOUN", "PUNCT"), (4, 3, 4, 0, 4)),
]


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


@pytest.fixture
def treebank(tmp_path):
    text = ""
    for words, tags, heads in SENTENCES:
        for number, (word, tag, head) in enumerate(zip(words, tags, heads, strict=True), start=1):
            text += "\t".join([str(number), word, "_", tag, "_", "_", str(head), "dep" if head else "root", "_", "_"]) + "\n"
        text += "\n"
    file = tmp_path / "treebank.conllu"
    file.write_text(text * 8)
    return file


def test_sentences_of_the_steps(treebank, monkeypatch):
    import train

    monkeypatch.setattr(train, "HELD_OUT", 3)
    tags, parts = train.read(treebank, treebank)
    assert tags == ["ADJ", "ADV", "DET", "NOUN", "PART", "PUNCT"]
    assert [len(parts[name].trees) for name in ("train", "validation", "test")] == [21, 3, 24]
    assert parts["validation"].labels == [[2, 0, 3], [4, 0], [2, 1, 0, 3, 5]]
    for kind, shown in (("trees", 16), ("task", 0), ("both", 8)):
        drawn = train.examples(kind, parts["train"], 4, steps=70, seed=1)
        assert len(drawn) == 70 * train.BATCH
        batches = [drawn[first : first + train.BATCH] for first in range(0, len(drawn), train.BATCH)]
        assert {sum(shows for _, shows in batch) for batch in batches} == {shown}
        pool = {place for place, shows in drawn if shows}
        assert len(pool) == (4 if shown else 0)  # all of them, and no others
        assert kind == "trees" or {place for place, shows in drawn if not shows} == set(range(21))
    # The trees of fewer are among those of more, whatever is learned from.
    few = {place for place, _ in train.examples("trees", parts["train"], 2, 5, 1)}
    assert len(few) == 2
    assert few < {place for place, shows in train.examples("both", parts["train"], 6, 5, 1) if shows}


def test_trees_are_shown_where_they_are_said_to_be(treebank, wordpiece):
    import train

    _, parts = train.read(treebank, treebank)
    some = parts["test"].select([0, 1])
    data = train.features(wordpiece, some, [True, False], labelled=True)
    assert data["heads"][:] == [[3, 3, 0], [-100, -100]]
    assert [label for label in data["labels"][1] if label >= 0] == [4, 0]
    assert "heads" not in train.features(wordpiece, some, [False, False], labelled=True).column_names
    assert "labels" not in train.features(wordpiece, some, [True, True], labelled=False).column_names


def test_the_table(monkeypatch, tmp_path, treebank, tiny_bert, wordpiece, capsys):
    import train as module

    tiny_bert.save_pretrained(tmp_path / "encoder")
    wordpiece.save_pretrained(tmp_path / "encoder")
    monkeypatch.setattr(module, "HELD_OUT", 3)
    monkeypatch.setattr(module, "FROZEN", 0)
    source = (
        (FOLDER / "reproduce.py").read_text().replace("STEPS = 300", "STEPS = 2").replace("(10, 100, 1000, None)", "(2, None)")
    )
    script = tmp_path / "reproduce.py"
    script.write_text(source)

    def call(*command):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, command)])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    files = ["--train_file", treebank, "--test_file", treebank, "--encoder", tmp_path / "encoder"]
    common = [*files, "--seeds", 1, "--output_dir", tmp_path, "--jobs", 1]
    text = call("table", *common)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:5]] == ["0", "2", "all"]
    assert rows[2][1] == ""  # nothing is learned from no trees alone
    stored = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*.json")]
    assert len(stored) >= 8
    assert all(0 <= share <= 100 for one in stored for part in ("validation", "test") for share in one["result"][part].values())
    assert (tmp_path / "table.svg").read_text().count("<svg") == 1
    rows = [line.split("|")[1:-1] for line in call("why", *common).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4 * 2
    assert rows[2][2].strip() == ""  # no parts of speech were learned
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("all runs are there"))
    assert call("table", *common) == text
    with pytest.raises(SystemExit):
        call("table")


def test_a_tree_that_the_task_does_not_teach():
    import train

    from hf_latent import DependencyTree

    scores = torch.randn(1, 3, 4, requires_grad=True)
    latent = train.UntaughtMarginals()(DependencyTree(), scores)
    torch.testing.assert_close(latent.value, DependencyTree().marginals(scores))
    assert not latent.value.requires_grad
    assert not latent.loss.any()
