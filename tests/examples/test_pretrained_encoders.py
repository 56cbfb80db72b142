"""Latent trees on a pretrained encoder: the data, one run, and the tables."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "pretrained_encoders"


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


@pytest.fixture
def files(tmp_path):
    """Sentiment of twenty sentences a split, and a folder with a tiny encoder."""
    data = tmp_path / "data"
    data.mkdir()
    lines = [f"{text}\t{label}" for text, label in (("a good film", 1), ("not a good film", 0))] * 10
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (data / name).write_text("\n".join(lines) + "\n")
    return data


def test_negations_turn_the_label_round():
    import tasks

    plain, negated = tasks._filled(tasks.PLAIN, negated=False), tasks._filled(tasks.NEGATED, negated=True)
    assert len(plain.labels) == len(negated.labels) == 120
    assert [1 - label for label in negated.labels] == plain.labels
    assert {"not", "never", "nobody"} & set(plain.sentences[0][0].split()) == set()
    assert all({"not", "never", "nobody"} & set(text.split()) for (text,) in negated.sentences)


def test_contrasts_have_a_sentence_in_common():
    import tasks

    texts = tasks.Texts([("a", "b"), ("a", "c"), ("d", "e"), ("d", "f"), ("g", "h")], [0, 1, 2, 2, 1])
    assert tasks.contrasts(texts) == [[0, 1]]
    few = texts.some(3, seed=1)
    assert few == texts.some(3, seed=1)
    assert set(zip(few.sentences, few.labels, strict=True)) < set(zip(texts.sentences, texts.labels, strict=True))


def test_pairs_of_sick(data_dir):
    import tasks

    found = tasks.read("sick", data_dir / "sick")
    assert [len(found[split].labels) for split in ("train", "validation", "test")] == [4500, 500, 4927]
    assert len(tasks.contrasts(found["test"])) > 300


def test_commands(monkeypatch, tmp_path, files, tiny_bert, wordpiece, capsys):
    import train as module

    tiny_bert.save_pretrained(tmp_path / "encoder")
    wordpiece.save_pretrained(tmp_path / "encoder")
    reproduce = FOLDER / "reproduce.py"

    def call(*command):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, command)])
        runpy.run_path(str(reproduce), run_name="__main__")
        return capsys.readouterr().out

    common = ["--encoder", tmp_path / "encoder", "--data", files, "--output_dir", tmp_path, "--jobs", 1, "--frozen", 1]
    text = call("matters", *common, "--variants", "no tree", "… and near heads", "--seeds", 1, 2)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [row[0] for row in rows[2:]] == ["no tree", "… and near heads"]
    assert 0 <= float(rows[3][-1]) <= 100  # agreement of the two seeds
    stored = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*.json")]
    assert len(stored) == 4
    for one in stored:
        assert set(one["result"]["accuracy"]) == {"validation", "test", "plain", "negated"}
        assert ("trees" in one["result"]) == (one["run"]["row"] != "none")
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("all runs are there"))
    assert "near heads" in call("matters", *common, "--variants", "no tree", "… and near heads", "--seeds", 1, 2)
    call("pack", "--output_dir", tmp_path)
    assert (tmp_path / "runs.jsonl.gz").is_file()
    with pytest.raises(SystemExit):
        call("matters", "--output_dir", tmp_path)


def test_the_upper_layers_learn(tmp_path, tiny_bert, wordpiece):
    import train

    tiny_bert.save_pretrained(tmp_path)
    run = {"task": "sst2", "row": "marginals", "frozen": 1}
    model = train.new_model(run, str(tmp_path), wordpiece)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in learning if "embeddings" in name or ".layer.0." in name]
    assert [name for name in learning if ".layer.1." in name] or tiny_bert.config.num_hidden_layers == 1
    assert [name for name in learning if "tree.scorer" in name]


def test_learning_rates_are_chosen_by_validation(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["reproduce.py"])
    found = runpy.run_path(str(FOLDER / "reproduce.py"))
    arguments = {"sizes": ["few"], "rows": ["none", "marginals"], "seeds": [1, 2], "task": "sst2", "frozen": 4}

    def make(_, runs):
        return [
            {"accuracy": {"validation": 1 - abs(run["learning_rate"] - (1e-3 if run["row"] == "none" else 3e-4)), "test": 0.5}}
            for run in runs
        ]

    monkeypatch.setitem(found["estimators"].__globals__, "make", make)
    text = found["estimators"](dataclasses.make_dataclass("Arguments", arguments)(**arguments))
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines() if line.startswith("|")}
    assert (rows["none"], rows["marginals"]) == ("0.001", "0.0003")


def test_predictions_come_in_the_order_of_the_data(tmp_path, tiny_bert, wordpiece):
    """Of a Trainer that groups by length, they do not."""
    import tasks
    import train
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    tiny_bert.save_pretrained(tmp_path)
    model = train.new_model({"task": "sst2", "row": "none", "frozen": 0}, str(tmp_path), wordpiece).eval()
    texts = tasks.Texts([("a good film " * (1 + place % 7),) for place in range(21)], [0] * 21)
    data = texts.dataset(wordpiece)
    arguments = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=4, train_sampling_strategy="group_by_length", report_to="none"
    )
    trainer = Trainer(model, arguments, data_collator=DataCollatorWithPadding(wordpiece), processing_class=wordpiece)
    inputs = [{name: torch.tensor([values]) for name, values in row.items() if name != "labels"} for row in data]
    logits = torch.cat([model(**one).logits for one in inputs]).detach()
    between = logits[:7].sort(dim=0).values[2:4].mean(0)  # so that some texts fall on either side
    model.classifier.bias.data -= between
    expected = (logits - between).argmax(1).tolist()
    assert len(set(expected)) == 2
    assert train._predicted(trainer, data).tolist() == expected
