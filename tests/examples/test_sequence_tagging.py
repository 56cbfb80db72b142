"""Sequence tagging: the data, the same network without transitions, what is measured of spans, and the table."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from hf_latent import ChainScores, DataCollatorForLatentTrees
from hf_latent.layers import SpanScheme, span_probabilities

FOLDER = Path(__file__).parents[2] / "examples" / "sequence_tagging"
ENTITIES = "a\tO\ngood\tB-x\nfilm\tI-x\n\nnot\tO\nbad\tB-y\n\n\na\tB-x\n\n"


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


def test_sentences_of_files(tmp_path, wordpiece):
    from data import read

    (tmp_path / "entities.conll").write_text(ENTITIES)
    found = read(tmp_path / "entities.conll")
    assert found.words == [["a", "good", "film"], ["not", "bad"], ["a"]]
    assert found.labels == [["O", "B-x", "I-x"], ["O", "B-y"], ["B-x"]]
    (tmp_path / "tags.conllu").write_text("1\ta\t_\tDET\t_\t_\t2\tdet\t_\t_\n2\tfilm\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n")
    assert read(tmp_path / "tags.conllu").labels == [["DET", "NOUN"]]
    assert [part.words for part in found.divided(1)] == [found.words[:2], found.words[2:]]
    assert len(found.some(2, seed=1).words) == 2
    rows = type(found)([["a", "\ufe0f"]], [["O", "O"]]).dataset(wordpiece, ["O"])  # the second has no token of its own
    assert rows["word_ids"][0] == [-1, 0, 1, -1]


def test_without_transitions_it_is_a_softmax_at_each_word(tiny_bert, wordpiece):
    from data import Tagged
    from train import new_model

    names = ["B-x", "I-x", "O"]
    model = new_model({"kind": "softmax"}, tiny_bert, wordpiece, names, 2).eval()
    data = Tagged([["a", "good", "film"], ["bad"]], [["O", "I-x", "I-x"], ["B-x"]]).dataset(wordpiece, names)
    batch = DataCollatorForLatentTrees(wordpiece)(list(data))
    output = model(**batch, decode=False)
    expected = cross_entropy(output.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)
    assert not any(scores.requires_grad for scores in model.crf.parameters())


def test_what_is_measured_of_spans():
    """Two sentences: of three chosen spans one is right and one begins with I; two are right in all."""
    from train import Sentences, of_spans

    scheme = SpanScheme(["O", "B-x", "I-x"])
    gold, chosen = [[1, 2, 0], [0, 1]], [[1, 2, 0], [2, 1]]
    emissions = torch.zeros(2, 3, 3).log_softmax(-1)
    emissions[0, 0] = torch.tensor([0.1, 0.8, 0.1]).log()
    chain = ChainScores(emissions, torch.zeros(3, 3), torch.tensor([3, 2]))
    found = of_spans(scheme, [Sentences(gold, chosen, lambda spans: span_probabilities(scheme, chain, spans))])
    right = 2  # (0, 2) of the first, (1, 2) of the second
    assert found["precision"] == pytest.approx(100 * right / 3)
    assert found["recall"] == pytest.approx(100)
    assert found["invalid"] == pytest.approx(100 / 3)
    # Of the right one of the first sentence, 0.9 · 1/3 · 2/3 (its first word is B or I, the next I, the last not), in a bin of
    # its own; of those of the second, both 4/9, of which one is right.
    assert found["calibration error"] == pytest.approx(100 * (0.8 + 1 / 9) / 3, abs=1e-4)


def test_the_longest_span_and_what_segments_are_chosen(tiny_bert, wordpiece):
    from data import Tagged
    from train import figures, longest_span, new_model

    names = ["B-x", "I-x", "O"]
    tagged = Tagged([["a", "good", "film"], ["bad"]], [["O", "B-x", "I-x"], ["B-x"]])
    assert longest_span(names, tagged) == 2
    assert longest_span(["NOUN", "VERB"], Tagged([["a"]], [["NOUN"]])) == 1
    model = new_model({"kind": "segments"}, tiny_bert, wordpiece, names, 2)
    for seed in range(3):
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.scorer.output.weight, std=5.0)
        rows = list(tagged.dataset(wordpiece, names))
        found = figures(model, [DataCollatorForLatentTrees(wordpiece)(rows)])["spans"]
        assert found["invalid"] == 0
        assert 0 <= found["calibration error"] <= 100


def test_the_table(monkeypatch, tmp_path, tiny_bert, wordpiece, capsys):
    import train as module

    tiny_bert.save_pretrained(tmp_path / "encoder")
    wordpiece.save_pretrained(tmp_path / "encoder")
    words = ["a", "good", "film", "not", "bad"]
    (tmp_path / "vectors.txt").write_text("".join(f"{word} 0.1 0.{number} 0.3\n" for number, word in enumerate(words)))
    (tmp_path / "entities.conll").write_text(ENTITIES * 3)
    monkeypatch.setattr(module, "FROZEN", 0)
    source = (FOLDER / "reproduce.py").read_text()
    for before, after in (("1500", "2"), ("500", "2"), ("(300, None)", "(4, None)")):
        assert before in source
        source = source.replace(before, after)
    script = tmp_path / "reproduce.py"
    script.write_text(source)

    def call(*command):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, command)])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    files = ["--word_vectors", tmp_path / "vectors.txt", "--entities", *[tmp_path / "entities.conll"] * 3]
    common = [*files, "--encoder", tmp_path / "encoder", "--seeds", 1, "--output_dir", tmp_path, "--jobs", 1]
    text = call("table", *common)
    rows = [line for line in text.splitlines() if line.startswith("| word") or line.startswith("| transformer")]
    assert len(rows) == 2 * 2 * 4  # encoders, sizes; softmax, its valid sequences, the field, segments
    stored = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*.json")]
    assert len(stored) == 2 * 3 * 3  # encoders, kinds; two sizes, and another learning rate for one
    assert all(one["result"]["test"]["spans"]["invalid"] == 0 for one in stored if one["run"]["kind"] != "softmax")
    with pytest.raises(SystemExit):
        call("table")
