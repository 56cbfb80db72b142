"""`pipeline("latent-tree-parsing")`, and other pipelines of transformers, on our models."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, pipeline

from hf_latent import LatentTreeForSequenceClassification, LatentTreeForTokenClassification, parse
from hf_latent.trees import Tree

TEXTS = ["a very good film .", "not unwatchable", "bad", "a good , very good unwatchable film ."]


@pytest.fixture(params=["spigot", "marginals"])
def folder(request, tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=request.param)
    model.save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_parsing_from_a_folder(folder, wordpiece, batch_size):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = parse(model, wordpiece, TEXTS)
    found = pipeline("latent-tree-parsing", model=str(folder), device="cpu")(TEXTS, batch_size=batch_size)
    for one, tree, text in zip(found, expected, TEXTS, strict=True):
        assert one["words"] == list(tree.words)
        assert "".join(one["words"]) == text.replace(" ", "")
        assert one["heads"] == list(tree.heads)
        assert one["weights"] == pytest.approx(tree.weights, abs=1e-5)
        assert isinstance(one["tree"], Tree)
        assert one["tree"].to_svg().startswith("<svg")


def test_parsing_one_text_and_lists_of_words(folder):
    parser = pipeline("latent-tree-parsing", model=str(folder), device="cpu")
    assert parser("a good film")["words"] == ["a", "good", "film"]
    assert [one["words"] for one in parser([["not", "un-watchable"], ["film"]])] == [["not", "un-watchable"], ["film"]]
    assert parser("")["heads"] == []
    with pytest.raises(TypeError, match="Texts must be strings, or lists of words, got 3"):
        parser(3)
    with pytest.raises(TypeError, match="has no option 'top_k'"):
        parser("a film", top_k=2)


def test_long_texts_are_an_error_or_are_cut_to_what_the_encoder_takes(folder, wordpiece, caplog):
    parser = pipeline("latent-tree-parsing", model=str(folder), device="cpu")
    for texts in ("good " * 60, ["a film", "good " * 60], [["a"], ["good"] * 60]):
        with pytest.raises(ValueError, match=r"'good good .* has 62 tokens.* at most 40.* `truncation=True`"):
            parser(texts)
    assert "longer than the specified maximum" not in caplog.text
    assert len(parser("good " * 60, truncation=True)["words"]) == 38  # of 40 positions, two are for special tokens
    assert len(pipeline("latent-tree-parsing", model=str(folder), device="cpu", truncation=True)("good " * 60)["words"]) == 38
    # A word may be cut in two. Words that are left out are none; but a word without tokens is still an error.
    words = ["a"] * 37 + ["unwatchable", "film"]
    assert parser([words], truncation=True)[0]["words"] == words[:38]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with pytest.raises(ValueError, match="has 62 tokens"):
        parse(model, wordpiece, ["good " * 60])
    (tree,) = parse(model, wordpiece, ["good " * 60], truncation=True)
    assert tree.words == ("good",) * 38
    for words in (["a", ""], ["a", "", *["film"] * 60]):
        with pytest.raises(ValueError, match="no token for word 1"):
            parse(model, wordpiece, [words], truncation=True)


def test_parsing_with_any_of_our_models_and_no_other(tiny_bert, wordpiece):
    tagger = LatentTreeForTokenClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    assert pipeline("latent-tree-parsing", model=tagger, tokenizer=wordpiece, device="cpu")("a film")["words"] == ["a", "film"]
    with pytest.raises(ValueError, match="needs a latent-tree model, got a BertForSequenceClassification"):
        pipeline("latent-tree-parsing", model=BertForSequenceClassification(tiny_bert.config), tokenizer=wordpiece)
    plain = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=None)
    with pytest.raises(ValueError, match="no latent tree to show"):
        pipeline("latent-tree-parsing", model=plain, tokenizer=wordpiece)


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_classification_is_the_same_however_it_is_asked_for(folder, wordpiece, side):
    """Through a plain forward pass, alone or in a batch, and through the pipeline, padded on either side."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    alone = torch.cat([model(**wordpiece(text, return_tensors="pt")).logits for text in TEXTS]).detach()
    served = pipeline("text-classification", model=str(folder), device="cpu", top_k=None, function_to_apply="none")
    served.tokenizer.padding_side = side
    for batch_size in (1, 4):
        scores = [{one["label"]: one["score"] for one in row} for row in served(TEXTS, batch_size=batch_size)]
        found = torch.tensor([[row["LABEL_0"], row["LABEL_1"]] for row in scores])
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
