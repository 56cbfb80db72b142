"""Heads with relations below other tasks: what the decoder sees of them, how they are learned, and how they are shown."""

import pytest
import torch
from conftest import TREE_ESTIMATORS
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, pipeline

from hf_latent import (
    DataCollatorForLatentTrees,
    DependencyTree,
    LatentTreeConfig,
    LatentTreeForDependencyParsing,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeModel,
    encode_words,
    parse,
)
from hf_latent.layers import HeadAveraging, RelationAveraging
from hf_latent.model_cards import write_model_card
from hf_latent.models.losses import tree_nll

RELATIONS = ["amod", "root", "det", "punct"]
SENTENCES = [["a", "good", "film", "."], ["not", "very", "bad"], ["unwatchable"]]
HEADS = [[3, 3, 0, 3], [3, 3, 0], None]
GOLD = [[2, 0, 1, 3], [0, -100, 1], None]


def batch(tokenizer, **columns):
    features = encode_words(tokenizer, SENTENCES, **columns)
    collator = DataCollatorForLatentTrees(tokenizer)
    return collator([dict(zip(features, row, strict=True)) for row in zip(*features.values(), strict=True)])


def new(kind, encoder, tokenizer, **options):
    model = kind.from_encoder(encoder, tokenizer, **{"relations": RELATIONS, "num_labels": 2, **options})
    torch.nn.init.normal_(model.base_model.relation_averaging.scorer.bilinear)
    torch.nn.init.normal_(model.base_model.tree.scorer.bilinear)
    return model


# --- The layer


def test_relations_are_averaged_as_written():
    layer = RelationAveraging(6, 5, 8, relation_size=4).double()
    torch.nn.init.normal_(layer.scorer.bilinear)
    words, heads = torch.randn(2, 3, 6).double(), torch.tensor([[0, 3, 1], [2, 0, 2]])
    arcs = torch.nn.functional.one_hot(heads, 4).double()
    assert torch.equal(layer.scorer(words, arcs), layer.scorer(words, heads))  # definite arcs are heads
    expected = torch.einsum("bnr,rs->bns", layer.scorer(words, heads).softmax(-1), layer.vectors)
    torch.testing.assert_close(layer(words, arcs), expected)
    soft = torch.rand(2, 3, 4).double().softmax(-1)
    governors = soft @ layer.scorer.head(torch.cat([layer.scorer.root.expand(2, 1, 6), words], 1))
    dependents = layer.scorer.dependent(words)
    scores = torch.einsum("bnk,krl,bnl->bnr", dependents, layer.scorer.bilinear, governors)
    scores = scores + layer.scorer.of_dependent(dependents) + layer.scorer.of_head(governors)
    torch.testing.assert_close(layer(words, soft), scores.softmax(-1) @ layer.vectors)
    assert torch.autograd.gradcheck(layer, (words.requires_grad_(), soft.requires_grad_()))


def test_relations_are_added_to_the_heads():
    words, arcs, relations = torch.randn(1, 3, 6), torch.rand(1, 3, 4).softmax(-1), torch.randn(1, 3, 6)
    averaging = HeadAveraging(6)
    without = averaging(words, arcs)
    torch.testing.assert_close(averaging(words, arcs, relations), torch.cat([words, without[..., 6:] + relations], -1))


# --- In the models


def test_surrogate_gradients_run_through_the_relations(tiny_bert, wordpiece):
    """The straight-through gradient of the scores is that of the loss by the arcs, of which relations depend as well."""
    model = new(LatentTreeModel, tiny_bert, wordpiece, estimator="ste_identity", estimator_options={"step_size": 1.0}).eval()
    inputs = batch(wordpiece)
    with torch.no_grad():
        scored = model(**inputs, choose=False)
    words, weights = scored.last_hidden_state, torch.randn(scored.last_hidden_state.shape[-1] * 2)

    def loss(seen, num_words):
        is_word = torch.arange(seen.shape[1]) < num_words[:, None]
        return ((seen @ weights).tanh() * is_word).sum(1)

    arcs = DependencyTree().argmax(scored.arc_scores, scored.num_words).requires_grad_()
    seen = model.head_averaging(words, arcs, model.relation_averaging(words, arcs))
    (expected,) = torch.autograd.grad(loss(seen, scored.num_words).sum(), arcs)
    (alone,) = torch.autograd.grad(loss(model.head_averaging(words, arcs), scored.num_words).sum(), arcs)
    model.tree.train()  # alone: the encoder has dropout
    output = model(**inputs, task_loss=loss)
    total = loss(output.last_hidden_state, output.num_words) + output.latent_loss
    (found,) = torch.autograd.grad(total.sum(), output.arc_scores)
    allowed = DependencyTree().mask(output.arc_scores, output.num_words)
    torch.testing.assert_close(found[allowed], expected[allowed], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected[allowed], alone[allowed], atol=1e-3)


@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_the_task_teaches_relations(tiny_bert, wordpiece, estimator):
    model = new(LatentTreeForSequenceClassification, tiny_bert, wordpiece, estimator=estimator).train()
    model(**batch(wordpiece), labels=torch.tensor([0, 1, 0])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    layer = model.latent_tree.relation_averaging
    assert layer.vectors.grad.any()
    assert layer.scorer.bilinear.grad.any()


def test_the_loss_of_gold_relations(tiny_bert, wordpiece):
    model = new(LatentTreeForSequenceClassification, tiny_bert, wordpiece, heads_loss_weight=0.5).eval()
    inputs = batch(wordpiece, heads=HEADS, relations=GOLD)
    both = model(**inputs)
    heads, relations = inputs["heads"], inputs["relations"]
    without = model(**{name: value for name, value in inputs.items() if name != "relations"})
    words = model.latent_tree(**{**inputs, "heads": None, "relations": None}, choose=False).last_hidden_state
    scores = model.latent_tree.relation_averaging.scorer(words, heads)
    counts = torch.tensor([4.0, 2.0, 1.0])
    expected = cross_entropy(scores.mT, relations, reduction="none").sum(1) / counts
    torch.testing.assert_close(both.heads_loss - without.heads_loss, expected)
    trees = tree_nll(DependencyTree(), both.arc_scores, both.num_words, heads) / torch.tensor([4.0, 3.0, 1.0])
    torch.testing.assert_close(both.loss, 0.5 * (trees + expected).mean())
    labelled = model(**inputs, labels=torch.tensor([0, 1, 0]))
    alone = model(**batch(wordpiece), labels=torch.tensor([0, 1, 0]))
    torch.testing.assert_close(labelled.loss, alone.loss + both.loss)


def test_relations_are_learned_and_shown(tiny_bert, wordpiece, tmp_path):
    model = new(LatentTreeForSequenceClassification, tiny_bert, wordpiece).train()
    inputs = batch(wordpiece, heads=HEADS, relations=GOLD)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**inputs, labels=torch.tensor([0, 1, 0])).loss.backward()
        optimizer.step()
    found = parse(model, wordpiece, SENTENCES)
    assert found[0].heads == (3, 3, 0, 3)
    assert found[0].relations == ("det", "amod", "root", "punct")
    assert found[2].relations == ("root",)  # of the only word, whose head is ROOT
    output = model.eval()(**inputs)
    assert output.relations[0].tolist() == GOLD[0]
    assert output.relations[1].tolist()[3:] == [-100]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.relations == RELATIONS
    assert parse(loaded, wordpiece, SENTENCES) == found
    shown = pipeline("latent-tree-parsing", model=loaded, tokenizer=wordpiece)([SENTENCES[0]])[0]
    assert shown["relations"] == ["det", "amod", "root", "punct"]
    assert shown["tree"].relations == tuple(shown["relations"])
    assert "\tdet\t" in shown["conllu"]


def test_pairs_have_relations(tiny_bert, wordpiece):
    model = new(LatentTreeForPairClassification, tiny_bert, wordpiece)
    pairs, heads = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[0])], [HEADS[:2], [None, HEADS[0]]]
    features = encode_words(wordpiece, pairs, heads=heads, relations=[GOLD[:2], [None, GOLD[0]]], labels=[0, 1])
    rows = [dict(zip(features, row, strict=True)) for row in zip(*features.values(), strict=True)]
    inputs = DataCollatorForLatentTrees(wordpiece)(rows)
    assert inputs["relations"].tolist() == [[[2, 0, 1, 3], [0, -100, 1, -100]], [[-100] * 4, [2, 0, 1, 3]]]
    output = model.train()(**inputs)
    output.loss.backward()
    assert model.latent_tree.relation_averaging.scorer.bilinear.grad.any()
    labels = inputs.pop("labels")
    assert labels.tolist() == [0, 1]
    shown = model.eval()(**inputs)
    assert shown.relations.shape == shown.heads.shape == (2, 2, 4)
    is_word = shown.heads >= 0
    assert ((shown.relations == RELATIONS.index("root")) == (shown.heads == 0))[is_word].all()


# --- Errors


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"relations": GOLD}, "`relations` were given without `heads`"),
        (
            {"heads": HEADS, "relations": [[2, 0, 4, 3], None, None]},
            r"between 0 and 3.*relations\[0, 2\] is 4.*`config.relations`",
        ),
    ],
)
def test_relations_that_do_not_fit(tiny_bert, wordpiece, columns, message):
    model = new(LatentTreeForSequenceClassification, tiny_bert, wordpiece)
    with pytest.raises(ValueError, match=message):
        model(**batch(wordpiece, **columns), labels=torch.tensor([0, 1, 0]))


def test_models_without_relations(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece)
    inputs = batch(wordpiece, heads=HEADS, relations=GOLD)
    with pytest.raises(ValueError, match="`relations` were given to a model that has none"):
        model(**inputs)
    assert "relations" not in pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece)("a good film")


def test_configurations_that_make_no_sense():
    for relations in ([], ["root", "root"]):
        with pytest.raises(ValueError, match="`relations` must be names, each once"):
            LatentTreeConfig(relations=relations)
    with pytest.raises(ValueError, match="a model with `estimator=None` has no heads"):
        LatentTreeConfig(relations=["root"], estimator=None)
    with pytest.raises(ValueError, match="relations of a parser are its labels"):
        LatentTreeForDependencyParsing(LatentTreeConfig(relations=["root"]))


def test_the_card_tells_of_relations(tiny_bert, wordpiece, tmp_path):
    model = new(LatentTreeForSequenceClassification, tiny_bert, wordpiece)
    text = write_model_card(tmp_path, model, wordpiece, "labelled", "a good film").read_text(encoding="utf-8")
    assert "| relations | 4, by a biaffine scorer of 100 units |" in text
