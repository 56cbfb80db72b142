"""Sentence pairs with two latent trees, and trees that are given to learn from."""

import pytest
import torch
from conftest import TREE_ESTIMATORS, TREES, tree_name
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
    pipeline,
)

from hf_latent import (
    BiLstmConfig,
    BiLstmModel,
    DependencyTree,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeModel,
    parse,
)
from hf_latent.layers import DecomposableAttention
from hf_latent.models.bilstm import word_tokenizer
from hf_latent.models.latent_tree.modeling_pair_classification import split_pairs
from hf_latent.models.losses import tree_nll

WORDS = ["a", "good", "film", "not", "very", "bad"]
FIRST, SECOND = ["a good film", "not a very bad film", "good"], ["a film", "not good", "a good film"]


def word_model(estimator="spigot", layers=0, **options):
    tokenizer = word_tokenizer(WORDS, pairs=True)
    config = BiLstmConfig(vocab_size=len(tokenizer), embedding_size=8, hidden_size=8, num_hidden_layers=layers)
    model = LatentTreeForPairClassification.from_encoder(
        BiLstmModel(config), tokenizer, num_labels=3, estimator=estimator, arc_scorer="mlp", decoder_size=16, **options
    )
    return model, tokenizer


@pytest.mark.parametrize("estimator", [None, *TREE_ESTIMATORS])
def test_pairs_forward_and_backward(estimator):
    model, tokenizer = word_model(estimator)
    encoded = tokenizer(FIRST, SECOND, padding=True, return_tensors="pt")
    output = model.train()(**encoded, labels=torch.tensor([0, 1, 2]))
    output.loss.backward()
    assert output.logits.shape == (3, 3)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
    if estimator is not None:
        assert output.arcs.shape == (3, 2, 5, 6)
        assert output.num_words.tolist() == [[3, 2], [5, 2], [1, 3]]
        assert output.latent_loss.shape == (3,)


def test_pairs_of_words_without_context_do_not_depend_on_the_batch_or_on_each_other_beyond_the_decoder():
    model, tokenizer = word_model("marginals")
    model.eval()
    together = model(**tokenizer(FIRST, SECOND, padding=True, return_tensors="pt"))
    for row, (first, second) in enumerate(zip(FIRST, SECOND, strict=True)):
        alone = model(**tokenizer(first, second, return_tensors="pt"))
        torch.testing.assert_close(alone.logits[0], together.logits[row])
        turned = model(**tokenizer(second, first, return_tensors="pt"))
        n = int(alone.num_words.max())
        torch.testing.assert_close(turned.arcs[0, 0], alone.arcs[0, 1, :n, : n + 1])


def test_several_inner_steps_run_through_the_whole_decoder(monkeypatch):
    model, tokenizer = word_model("spigot", estimator_options={"num_steps": 3, "step_size": 1.0})
    seen = []
    monkeypatch.setattr(model, "logits", lambda words, *rest, own=model.logits: seen.append(words) or own(words, *rest))
    encoded = tokenizer(FIRST, SECOND, padding=True, return_tensors="pt")
    model.train()(**encoded, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert len(seen) == 4  # three inner steps and the forward pass
    assert seen[0].shape[:2] == (3, 2)
    assert all(not torch.equal(seen[0][:, sentence], seen[2][:, sentence]) for sentence in (0, 1))  # both trees move


def test_pairs_train_with_the_stock_trainer_and_serve_in_the_stock_pipeline(tmp_path, caplog):
    """Whether two words are of the same kind can be told from the pair alone."""
    model, tokenizer = word_model("marginals")
    pairs = [(one, two, int((one in WORDS[:3]) == (two in WORDS[:3]))) for one in WORDS for two in WORDS] * 2
    first, second, labels = zip(*pairs, strict=True)
    data = Dataset.from_dict({**tokenizer(list(first), list(second)), "labels": labels})
    arguments = TrainingArguments(
        output_dir=tmp_path,
        num_train_epochs=40,
        learning_rate=1e-2,
        per_device_train_batch_size=16,
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, LatentTreeForPairClassification)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").sep_token == "[SEP]"
    classify = pipeline("text-classification", model=loaded, tokenizer=tokenizer)
    assert "not supported" not in caplog.text
    answers = classify([{"text": one, "text_pair": two} for one, two in zip(first, second, strict=True)])
    right = sum(answer["label"] == f"LABEL_{label}" for answer, label in zip(answers, labels, strict=True))
    assert right / len(labels) > 0.9
    assert [tree.words for tree in parse(loaded, tokenizer, ["a good film"])] == [("a", "good", "film")]


def test_pairs_on_a_transformer(tiny_bert, wordpiece):
    model = LatentTreeForPairClassification.from_encoder(tiny_bert, wordpiece, num_labels=3, estimator="spigot").eval()
    encoded = wordpiece(FIRST, SECOND, padding=True, return_tensors="pt")
    output = model(**encoded)
    assert output.num_words.tolist() == [[3, 2], [5, 2], [1, 3]]
    without = {name: value for name, value in encoded.items() if name != "token_type_ids"}
    assert model(**without).num_words.tolist() == output.num_words.tolist()
    with pytest.raises(ValueError, match=r"Row 0 of the batch is not a pair of sentences"):
        model(**wordpiece(["a good film"], return_tensors="pt"))


def test_where_the_second_sentence_begins():
    word_ids = torch.tensor([[-1, 0, 0, 1, -1, 2, 3, -1], [-1, -1, 0, -1, -1, 1, 1, 2]])
    expected = torch.tensor(
        [
            [[-1, 0, 0, 1, -1, -1, -1, -1], [-1, -1, -1, -1, -1, 0, 1, -1]],
            [[-1, -1, 0, -1, -1, -1, -1, -1], [-1, -1, -1, -1, -1, 0, 0, 1]],
        ]
    )
    assert torch.equal(split_pairs(word_ids, None), expected)
    assert torch.equal(split_pairs(word_ids, torch.zeros_like(word_ids)), expected)  # a tokenizer that does not tell
    marked = torch.tensor([[-1, 0, -1, 1, -1, 2, -1]])  # a special token within the first sentence
    types = torch.tensor([[0, 0, 0, 0, 0, 1, 1]])
    assert split_pairs(marked, types)[0].tolist() == [[-1, 0, -1, 1, -1, -1, -1], [-1, -1, -1, -1, -1, 0, -1]]
    # A sentence without words, where the tokenizer tells which it is.
    alone = torch.tensor([[-1, 0, 1, -1, -1], [-1, -1, 0, 1, -1]])
    types = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 1, 1]])
    assert (split_pairs(alone, types) >= 0).sum(2).tolist() == [[2, 0], [0, 2]]
    with pytest.raises(ValueError, match=r"Row 0 .* not a pair"):
        split_pairs(alone, None)
    with pytest.raises(ValueError, match=r"Row 0 .* not a pair"):
        split_pairs(marked, None)
    with pytest.raises(ValueError, match=r"Row 1 .* not a pair"):
        split_pairs(torch.tensor([[0, -1, 1], [0, 1, 2]]), None)


def test_decomposable_attention_by_its_formula():
    layer = DecomposableAttention(4, 3).double().eval()
    words, lengths = torch.randn(2, 2, 5, 4, dtype=torch.float64), torch.tensor([[5, 2], [3, 0]])
    result = layer(words, lengths)
    a, b = words[0, 0], words[0, 1, :2]
    e = layer.attend(a) @ layer.attend(b).T
    beta, alpha = e.softmax(1) @ b, e.T.softmax(1) @ a
    first = layer.compare(torch.cat([a, beta], 1)).sum(0)
    second = layer.compare(torch.cat([b, alpha], 1)).sum(0)
    torch.testing.assert_close(result[0], torch.cat([first, second]))
    assert not result[1, 3:].any()  # no words, no evidence
    assert result.isfinite().all()


# --- Trees given to learn from


@pytest.mark.parametrize("tree", TREES, ids=tree_name)
def test_loss_of_heads_is_their_negative_log_likelihood(tree):
    scores = torch.randn(4, 3, 4, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 2, 3, 0])
    heads = torch.tensor([[2, 0, 2, -100], [0, 1, -100, -100], [-100, 0, -100, -100], [-100, -100, -100, -100]])
    losses = tree_nll(tree, scores, lengths, heads)
    for row, (_, vertices, values) in enumerate(tree.enumerate_rows(scores, lengths)):
        has = torch.ones(len(vertices), dtype=torch.bool)
        for word, head in enumerate(heads[row, :3].tolist()):
            if head >= 0:
                has &= vertices[:, word, head].bool()
        expected = values.logsumexp(0) - values[has].logsumexp(0)
        torch.testing.assert_close(losses[row].double(), expected, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    gold = torch.nn.functional.one_hot(heads[0, :3], 4)
    torch.testing.assert_close(gradient[0], (tree.marginals(scores, lengths)[0] - gold).detach(), atol=1e-6, rtol=1e-6)
    assert not gradient[3].any()


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (torch.tensor([[2, 0, 2.0]]), r"must be integers of shape \(1, 3\)"),
        (torch.tensor([2, 0, 2]), r"must be integers of shape \(1, 3\)"),
        (torch.tensor([[2, 0, 4]]), r"heads\[0, 2\] is 4, in a sentence of 3 words"),
        (torch.tensor([[2, 0, 2, 1]]), r"heads\[0, 3\] is 1"),
        (torch.tensor([[2, 1, 0]]), r"heads\[0\] are those of no tree that"),
        (torch.tensor([[3, 0, 0]]), r"heads\[0\] are those of no tree that DependencyTree\(projective=True"),
    ],
)
def test_heads_that_make_no_sense(heads, message):
    with pytest.raises(ValueError, match=message):
        tree_nll(DependencyTree(), torch.randn(1, 3, 4), torch.tensor([3]), heads)


def test_a_model_learns_trees_that_are_given_to_it(tiny_bert, wordpiece):
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="marginals")
    texts = ["a good film .", "not a very good film .", "unwatchable"]
    heads = torch.tensor([[3, 3, 0, 3, -100, -100], [5, 5, 4, 5, 0, 5], [0] + [-100] * 5])
    encoded = wordpiece(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.train()(**encoded, heads=heads).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert [tree.heads for tree in parse(model, wordpiece, texts)] == [(3, 3, 0, 3), (5, 5, 4, 5, 0, 5), (0,)]


def test_heads_and_labels_together(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot").eval()
    encoded = wordpiece(["a good film", "bad"], padding=True, return_tensors="pt")
    labels, heads = torch.tensor([0, 1]), torch.tensor([[3, 3, 0], [-100] * 3])
    plain, supervised = model(**encoded, labels=labels), model(**encoded, labels=labels, heads=heads)
    torch.testing.assert_close(plain.loss, cross_entropy(plain.logits, labels))
    torch.testing.assert_close(supervised.loss, plain.loss + supervised.heads_loss.mean())
    assert supervised.heads_loss[1] == 0
    torch.testing.assert_close(model(**encoded, heads=heads).loss, supervised.heads_loss.mean())
    baseline = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, estimator=None)
    with pytest.raises(ValueError, match="without a tree"):
        baseline(**encoded, heads=heads)


@pytest.mark.parametrize("labels", [[0, -100, -100, -100], [-100] * 4, [0, 1, 0, 1]])
def test_heads_count_the_same_however_many_examples_have_labels(labels, tiny_bert, wordpiece):
    """Once, their sum was divided by the number of labels: too large a loss, or NaN where no example had one."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals").eval()
    encoded = wordpiece(["a good film"] * 4, padding=True, return_tensors="pt")
    heads = torch.tensor([[3, 3, 0]] * 4)
    for count in (None, torch.tensor(sum(label >= 0 for label in labels))):
        given = {"labels": torch.tensor(labels), "num_items_in_batch": count}
        both, plain = model(**encoded, **given, heads=heads), model(**encoded, **given)
        torch.testing.assert_close(both.loss - plain.loss, both.heads_loss.mean())


@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_heads_alone_are_learned_from_with_every_estimator(estimator, tiny_bert, wordpiece):
    encoded = wordpiece(["a good film"], return_tensors="pt")
    for model_class in (LatentTreeModel, LatentTreeForSequenceClassification):
        model = model_class.from_encoder(tiny_bert, wordpiece, estimator=estimator).train()
        model(**encoded, heads=torch.tensor([[3, 3, 0]])).loss.backward()
        assert model.base_model.tree.scorer.bilinear.grad.abs().sum() > 0


def test_predictions_with_heads_are_those_without(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    rows = [{**wordpiece("a good film"), "labels": 1, "heads": [3, 3, 0]}] * 4
    arguments = TrainingArguments(output_dir=tmp_path, report_to="none", use_cpu=True, remove_unused_columns=False)
    predicted = Trainer(model=model, args=arguments, data_collator=default_data_collator).predict(rows)
    assert predicted.predictions.shape == (4, 2)


def test_word_ids_of_pairs():
    model, tokenizer = word_model("spigot")
    encoded = tokenizer(FIRST[:1], SECOND[:1], return_tensors="pt")
    expected = model.eval()(**encoded)
    for word_ids in ([[0, 1, 2, -1, 0, 1]], [[0, 1, 2, -1, 3, 4]], [[[0, 1, 2, -1, -1, -1], [-1, -1, -1, -1, 0, 1]]]):
        output = model(**encoded, word_ids=torch.tensor(word_ids))
        torch.testing.assert_close(output.logits, expected.logits)
    with pytest.raises(ValueError, match=r"must have shape \(batch, 2, tokens\)"):
        model(**encoded, word_ids=torch.zeros(1, 3, 6, dtype=torch.long))


def test_heads_for_both_sentences_of_a_pair():
    model, tokenizer = word_model("spigot")
    heads = torch.tensor([[[3, 3, 0, -100, -100], [2, 0, -100, -100, -100]]])
    encoded = tokenizer(FIRST[:1], SECOND[:1], return_tensors="pt")
    output = model.eval()(**encoded, heads=heads)
    scores, structure = output.arc_scores[0], DependencyTree()
    alone = tree_nll(structure, scores, output.num_words[0], heads[0])
    torch.testing.assert_close(output.heads_loss, alone.sum()[None] / 5)  # the mean over words
