"""What serves leaves the model as it found it, answers in the order it was asked, and in JSON."""

import json
import threading
import warnings

import numpy as np
import pytest
import torch
from conftest import TREE_ESTIMATORS
from datasets import Dataset
from torch import nn
from transformers import Trainer, TrainingArguments, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_latent import LatentTreeForSequenceClassification, TreeStatisticsCallback, parse
from hf_latent.model_cards import write_model_card
from hf_latent.models.words.texts import evaluation_mode
from hf_latent.trees import Tree

TEXTS = ["bad", "a very good film .", "", "not unwatchable", "a good , very good unwatchable film .", "  un-watchable\tfilm\n"]


def model_of(tiny_bert, tokenizer, estimator="marginals", **options):
    """Part of it in evaluation mode, as people freeze an encoder, and much dropout in the rest."""
    model = LatentTreeForSequenceClassification.from_encoder(
        tiny_bert, tokenizer, num_labels=2, estimator=estimator, dropout=0.5, **options
    ).train()
    model.latent_tree.encoder.encoder.eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def serve_parse(model, tokenizer, folder):
    return [tree.heads for tree in parse(model, tokenizer, TEXTS)]


def serve_pipeline(model, tokenizer, folder):
    return [one["heads"] for one in pipeline("latent-tree-parsing", model=model, tokenizer=tokenizer, device="cpu")(TEXTS)]


def serve_card(model, tokenizer, folder):
    write_model_card(folder, model, tokenizer, "someone/trees", TEXTS[1])
    return (folder / "tree.svg").read_text()


def serve_callback(model, tokenizer, folder):
    trainer = Trainer(model, TrainingArguments(folder, report_to="none", use_cpu=True), processing_class=tokenizer)
    callback = TreeStatisticsCallback(trainer, TEXTS)
    callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    return [tree.heads for tree in callback.last]


SERVERS = [serve_parse, serve_pipeline, serve_card, serve_callback]


@pytest.mark.parametrize("serve", SERVERS)
@pytest.mark.parametrize("estimator", ["marginals", "spigot_ce"])
def test_serving_evaluates_and_leaves_each_module_in_its_mode(serve, estimator, tiny_bert, wordpiece, tmp_path):
    model = model_of(tiny_bert, wordpiece, estimator)
    before = modes(model)
    assert len(set(before)) == 2
    found = [serve(model, wordpiece, tmp_path) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert modes(model) == before
    assert found[0] == serve(model.eval(), wordpiece, tmp_path)
    assert not any(modes(model))


@pytest.mark.parametrize("serve", SERVERS)
def test_modes_come_back_after_an_error(serve, tiny_bert, wordpiece, tmp_path, monkeypatch):
    model = model_of(tiny_bert, wordpiece)
    before = modes(model)

    def fail(*_, **__):
        assert not any(modes(model))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.latent_tree.tree.scorer, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        serve(model, wordpiece, tmp_path)
    assert modes(model) == before


@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_after_training_with_every_estimator(estimator, tiny_bert, wordpiece):
    model = model_of(tiny_bert, wordpiece, estimator)
    served = pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece, device="cpu")
    assert [served(text)["heads"] for text in TEXTS] == [list(tree.heads) for tree in parse(model, wordpiece, TEXTS)]


def test_threads_that_serve_a_model_at_once(tiny_bert, wordpiece):
    """One that ends does not put the model into training mode under another."""
    model = model_of(tiny_bert, wordpiece)
    before, expected = modes(model), serve_parse(model, wordpiece, None)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(10):
            found = [tree.heads for tree in parse(model, wordpiece, TEXTS, batch_size=1)]
            if found != expected:
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert modes(model) == before


def test_one_caller_among_several_ends_first(tiny_bert, wordpiece):
    model = model_of(tiny_bert, wordpiece)
    before = modes(model)
    first, second = evaluation_mode(model), evaluation_mode(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(modes(model))
    second.__exit__(None, None, None)
    assert modes(model) == before


def test_losses_of_other_threads_are_not_taken_for_ones_own(tiny_bert, wordpiece):
    """The warning of a loss that leaves the tree out, in the thread that computes it and in no other."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce").train()
    inputs, labels = wordpiece(["a film"], return_tensors="pt"), torch.tensor([1])
    turn = threading.Barrier(2)

    def work(name: str) -> None:
        for _ in range(3):
            output = model(**inputs, labels=labels)
            turn.wait()
            loss = nn.functional.cross_entropy(output.logits, labels) if name == "wrong" else output.loss
            torch.autograd.grad(loss, [model.classifier.weight, model.latent_tree.tree.scorer.bilinear])
            turn.wait()

    records: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "warn", lambda *_, **__: records.append(threading.current_thread().name))
        threads = [threading.Thread(target=work, args=(name,), name=name) for name in ("right", "wrong")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(records) == {"wrong"}


def test_results_are_json_and_words_have_their_places(tiny_bert, wordpiece):
    served = pipeline("latent-tree-parsing", model=model_of(tiny_bert, wordpiece), tokenizer=wordpiece, device="cpu")
    found = served(TEXTS)
    assert json.loads(json.dumps(found)) == found
    for text, one, tree in zip(TEXTS, found, parse(served.model, wordpiece, TEXTS), strict=True):
        assert set(one) == {"words", "heads", "weights", "other_arcs", "offsets"}
        assert [text[start:end] for start, end in one["offsets"]] == one["words"] == list(tree.words)
        assert all(word == word.strip() != "" for word in one["words"])
        assert [list(span) for span in tree.offsets] == one["offsets"]
        made = one["tree"]
        assert (made.words, made.heads, made.offsets) == (tree.words, tree.heads, tree.offsets)
        assert made.weights == pytest.approx(tree.weights, abs=1e-5)
        assert [arc[:2] for arc in made.other_arcs] == [arc[:2] for arc in tree.other_arcs]
        assert {made: "it can be a key"}
        assert json.dumps(one)  # also once the tree was made
        with pytest.raises(KeyError, match="'picture'"):
            one["picture"]
    assert found[5]["offsets"][-1] == [15, 19]
    (words,) = served([["a", "good film"]])
    assert words["offsets"] == []
    assert words["words"] == ["a", "good film"]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize(
    "given",
    [
        list,
        tuple,
        iter,
        lambda texts: map(str, texts),
        lambda texts: (text for text in texts),
        np.array,
        lambda texts: Dataset.from_dict({"text": texts})["text"],
        lambda texts: KeyDataset(Dataset.from_dict({"text": texts}), "text"),
    ],
    ids=["list", "tuple", "iterator", "map", "generator", "array", "column", "KeyDataset"],
)
def test_several_texts_however_they_come(given, batch_size, tiny_bert, wordpiece):
    model = model_of(tiny_bert, wordpiece, "spigot")
    served = pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece, device="cpu")
    expected = [list(tree.heads) for tree in parse(model, wordpiece, TEXTS)]
    assert [one["heads"] for one in served(given(TEXTS), batch_size=batch_size)] == expected
    assert any(modes(model))


def test_lists_of_words_however_they_come(tiny_bert, wordpiece):
    served = pipeline("latent-tree-parsing", model=model_of(tiny_bert, wordpiece), tokenizer=wordpiece, device="cpu")
    expected = [["a", "film"], ["not", "very", "good"]]
    for given in (expected, tuple(map(tuple, expected)), [tuple(words) for words in expected]):
        assert [one["words"] for one in served(given, batch_size=2)] == expected


@pytest.mark.parametrize("nothing", [[], (), {}, Dataset.from_dict({"text": []})])
def test_no_texts(nothing, tiny_bert, wordpiece):
    served = pipeline("latent-tree-parsing", model=model_of(tiny_bert, wordpiece), tokenizer=wordpiece, device="cpu")
    assert served(nothing) == []
    assert parse(served.model, wordpiece, nothing if not isinstance(nothing, Dataset) else []) == []


@pytest.mark.parametrize("wrong", [3, None, {"text": "a film"}, b"a film", [3], ["a", None], [["a", 3]], [{"text": "a"}]])
def test_what_is_no_text(wrong, tiny_bert, wordpiece):
    served = pipeline("latent-tree-parsing", model=model_of(tiny_bert, wordpiece), tokenizer=wordpiece, device="cpu")
    with pytest.raises(TypeError, match="Texts must be strings, or lists of words, got"):
        served(wrong)


def test_texts_of_like_length_are_parsed_together(tiny_bert, wordpiece, monkeypatch):
    model = model_of(tiny_bert, wordpiece)
    texts = [" ".join(["good"] * count) for count in (1, 20, 2, 19, 1, 20)]
    padding = []
    own = model.latent_tree.forward

    def forward(*args, **kwargs):
        padding.append(int((kwargs["attention_mask"] == 0).sum()))
        return own(*args, **kwargs)

    monkeypatch.setattr(model.latent_tree, "forward", forward)
    expected = [len(text.split()) for text in texts]
    assert [len(tree.words) for tree in parse(model, wordpiece, texts, batch_size=2)] == expected
    served = pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece, device="cpu", batch_size=2)
    assert [len(one["words"]) for one in served(texts)] == expected
    assert padding == [0, 17, 0] * 2
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1, got 0"):
        parse(model, wordpiece, texts, batch_size=0)


def test_a_text_that_is_too_long_for_the_callback_is_told_of_before_the_training(tiny_bert, wordpiece, tmp_path):
    model = model_of(tiny_bert, wordpiece)
    trainer = Trainer(model, TrainingArguments(tmp_path, report_to="none", use_cpu=True), processing_class=wordpiece)
    with pytest.raises(ValueError, match=r"has 52 tokens, and the model .* takes at most 40"):
        TreeStatisticsCallback(trainer, ["a film", "good " * 50])


def test_offsets_are_not_compared():
    assert Tree(("a",), (0,), offsets=((2, 3),)) == Tree(("a",), (0,))
