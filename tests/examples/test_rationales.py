"""Rationales: what is measured of a choice, rankings by a model that sees all words, and the table."""

import gzip
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from hf_latent import DataCollatorForLatentTrees, LatentSelectionForSequenceClassification
from hf_latent.data import load_sentiment_trees

FOLDER = Path(__file__).parents[2] / "examples" / "rationales"
TREES = "(3 (2 a) (3 (3 good) (2 film)))\n(1 (2 not) (1 (2 very) (1 bad)))\n(4 (3 good) (2 .))\n"


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


@pytest.fixture
def sentences(tmp_path):
    (tmp_path / "dev.txt").write_text(TREES)
    return load_sentiment_trees(tmp_path / "dev.txt", words=True)


def new_model(tiny_bert, wordpiece, **options):
    model = LatentSelectionForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, **options).eval()
    torch.nn.init.normal_(model.classifier.weight, std=5.0)
    return model


def write_splits(folder):
    """Of which the first has the sentences of the second as well."""
    own = "(1 (1 bad) (2 film))\n(3 (3 good) (2 film))\n" * 4
    for split, trees in (("train", own + TREES), ("dev", TREES), ("test", "(1 (1 bad) (2 .))\n(3 (3 good) (2 a))\n")):
        (folder / f"{split}.txt.gz").write_bytes(gzip.compress(trees.encode()))


def test_sentences_of_other_splits_are_not_learned_from(tmp_path):
    from train import read

    write_splits(tmp_path)
    parts = read(tmp_path)
    assert {split: len(part) for split, part in parts.items()} == {"train": 8, "validation": 3, "test": 2}
    assert set(parts["train"]["text"]) == {"bad film", "good film"}


def test_what_is_measured_of_a_choice(tiny_bert, wordpiece, sentences):
    """Of four chosen words two are marked as words of feeling, and so are three in all."""
    from train import features, figures

    model = new_model(tiny_bert, wordpiece)
    rows = list(features(sentences, wordpiece))
    batches = [DataCollatorForLatentTrees(wordpiece)(rows)]
    chosen = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = figures(model, [dict(batches[0])], sentences["word_labels"], lambda model, batch: chosen)
    assert found["precision"] == pytest.approx(100 * 2 / 4)
    assert found["recall"] == pytest.approx(100 * 2 / 3)
    batch = dict(batches[0])
    labels = batch.pop("labels")
    with torch.no_grad():
        alone = model(**batch, chosen=chosen).logits.softmax(-1)
        whole = model(**batch, chosen=torch.ones(3, 3)).logits.softmax(-1)
    assert found["accuracy"] == pytest.approx(100 * (alone.argmax(1) == labels).float().mean().item())
    best = whole.argmax(1, keepdim=True)
    assert found["sufficiency"] == pytest.approx(100 * (whole - alone).gather(1, best).mean().item(), abs=1e-3)


def test_rankings_choose_as_many_words_as_the_models(tiny_bert, wordpiece, sentences):
    from train import by_attention, by_chance, by_gradient, features, own_choice

    whole, own = new_model(tiny_bert, wordpiece, estimator=None), new_model(tiny_bert, wordpiece)
    batch = DataCollatorForLatentTrees(wordpiece)(list(features(sentences, wordpiece)))
    labels = batch.pop("labels")
    assert labels.tolist() == [1, 0, 1]
    for rank in (by_chance, by_attention, by_gradient):
        assert rank(whole, batch).sum(1).tolist() == [1, 1, 1]
    assert own_choice(own, batch).sum(1).tolist() == [1, 1, 1]
    words, num_words = whole.words(batch["word_ids"], batch["attention_mask"], input_ids=batch["input_ids"]), 3
    queries = whole.pooling.query(whole.decoder(words.last_hidden_state))[:, :, 0].masked_fill(
        torch.arange(num_words) >= words.num_words[:, None], -torch.inf
    )
    assert torch.equal(by_attention(whole, batch).argmax(1), queries.argmax(1))


def test_the_table(monkeypatch, tmp_path, capsys):
    write_splits(tmp_path)
    words = ["a", "good", "film", "not", "very", "bad", "."]
    (tmp_path / "vectors.txt").write_text("".join(f"{word} 0.1 0.{number} 0.3\n" for number, word in enumerate(words)))

    def call(*command):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, command)])
        runpy.run_path(str(FOLDER / "reproduce.py"), run_name="__main__")
        return capsys.readouterr().out

    common = ["--data", tmp_path, "--word_vectors", tmp_path / "vectors.txt", "--output_dir", tmp_path, "--jobs", 1]
    text = call("table", *common, "--rows", "none", "ste_marginals", "imle", "--steps", 2, "--seeds", 1, 2)
    lines = [line for line in text.splitlines() if line.startswith("| all words") or line.startswith("| `")]
    assert len(lines) == 4 + 2  # none with three rankings, two estimators
    stored = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*.json")]
    assert len(stored) == 2 * 2 + 2 + 1  # two learning rates of two rows, the other seed of both, one seed of imle
    call("pack", *common)
    assert (tmp_path / "runs.jsonl.gz").is_file()
    with pytest.raises(SystemExit):
        call("table")
