"""Gold trees in the Trainer: losses, metrics, the best model, and trees that the model does not allow."""

import warnings

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, Trainer, TrainingArguments

from hf_latent import DependencyTree, LatentTreeConfig, LatentTreeForSequenceClassification, LatentTreeModel, parse
from hf_latent.metrics import load_metric
from hf_latent.models import losses
from hf_latent.models.losses import mean_heads_loss, tree_nll
from hf_latent.trees import attachment_score
from hf_latent.trees.tree import Tree

TEXTS = ["a good film .", "not a very good film .", "unwatchable", "a film"]
HEADS = [[3, 3, 0, 3], [5, 5, 4, 5, 0, 5], [0], [2, 0]]
CROSSING = [3, 0, 2, 2]  # the arc from 3 to 1 spans 2, whose head is ROOT


class Padded:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, rows):
        batch = dict(self.tokenizer.pad([{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt"))
        if "heads" in rows[0]:
            batch["heads"] = pad_sequence([torch.tensor(row["heads"]) for row in rows], True, padding_value=-100)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


def scores(found: EvalPrediction) -> dict[str, float]:
    return load_metric("attachment_score").compute(predictions=found.predictions, references=found.label_ids)


def trainer_of(model, tokenizer, folder, **options) -> Trainer:
    data = Dataset.from_dict({"input_ids": tokenizer(TEXTS)["input_ids"], "heads": HEADS})
    given = {"report_to": "none", "use_cpu": True, "per_device_eval_batch_size": 2, "learning_rate": 1e-2, "disable_tqdm": True}
    collator = Padded(tokenizer)
    arguments = TrainingArguments(folder, **given | options)
    return Trainer(model, arguments, collator, data, data, processing_class=tokenizer, compute_metrics=scores)


def test_attachment_scores_choose_the_best_model(tiny_bert, wordpiece, tmp_path):
    """With nothing said of label names."""
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="marginals")
    epochs = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 12, "save_total_limit": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "attachment_score", "greater_is_better": True}
    trainer = trainer_of(model, wordpiece, tmp_path, **epochs, **best)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(logged) == 12
    assert logged[-1]["eval_loss"] < logged[0]["eval_loss"]
    found = trainer.evaluate()
    assert found["eval_attachment_score"] == max(entry["eval_attachment_score"] for entry in logged)
    gold = [Tree(text.split(), heads) for text, heads in zip(TEXTS, HEADS, strict=True)]
    trees = parse(model, wordpiece, TEXTS)
    assert found["eval_attachment_score"] == pytest.approx(attachment_score(trees, gold))
    # Of sentences of several lengths, over batches; and where no tree is known.
    predicted = trainer.predict(trainer.eval_dataset.remove_columns("heads")).predictions
    assert predicted.dtype.kind == "i"
    assert predicted.tolist() == [[*tree.heads, *[-100] * (6 - len(tree.heads))] for tree in trees]
    assert trainer.predict(trainer.eval_dataset).label_ids.tolist() == [heads + [-100] * (6 - len(heads)) for heads in HEADS]


def test_heads_are_found_by_an_explicit_name_and_in_adapted_models(tiny_bert, wordpiece, tmp_path):
    peft = pytest.importorskip("peft")
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="spigot")
    assert "eval_attachment_score" in trainer_of(model, wordpiece, tmp_path, label_names=["heads"]).evaluate()
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"], modules_to_save=["tree"]))
    found = trainer_of(adapted, wordpiece, tmp_path).evaluate()
    assert found["eval_loss"] > 0
    assert "eval_attachment_score" in found


def test_classifiers_predict_logits_alone_beside_labels(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    trainer = trainer_of(model, wordpiece, tmp_path)
    labelled = trainer.eval_dataset.add_column("labels", [0, 1, 1, 0])
    trainer.compute_metrics = lambda found: {"shape": found.predictions.shape[1]}
    assert trainer.evaluate(labelled)["eval_shape"] == 2
    trainer.label_names = ["heads"]  # as of `TrainingArguments(label_names=["heads"])`
    trainer.compute_metrics = None
    logits, heads = trainer.predict(trainer.eval_dataset).predictions
    assert (logits.shape, heads.shape) == ((4, 2), (4, 6))


@pytest.mark.parametrize("weight", [0, 1.0, 0.25])
def test_heads_weigh_as_a_mean_over_words(weight, tiny_bert, wordpiece):
    """Four times the words, all with like scores, and the same loss."""
    model = LatentTreeForSequenceClassification.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator="marginals", heads_loss_weight=weight
    ).eval()
    encoded = wordpiece(TEXTS, padding=True, return_tensors="pt")
    labels, heads = torch.tensor([0, 1, 1, 0]), pad_sequence([torch.tensor(row) for row in HEADS], True, padding_value=-100)
    output = model(**encoded, labels=labels, heads=heads)
    sums = tree_nll(DependencyTree(), output.arc_scores, output.num_words, heads)
    torch.testing.assert_close(output.heads_loss, sums / torch.tensor([4.0, 6.0, 1.0, 2.0]))
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, labels) + weight * output.heads_loss.mean())
    torch.testing.assert_close(model(**encoded, heads=heads).loss, weight * output.heads_loss.mean())
    heads[1, :-1] = -100  # of words whose heads are known
    partial = model(**encoded, heads=heads)
    sums = tree_nll(DependencyTree(), partial.arc_scores, partial.num_words, heads)
    torch.testing.assert_close(partial.heads_loss[1], sums[1])


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_weights_that_make_no_sense(weight):
    with pytest.raises(ValueError, match="`heads_loss_weight` must be a finite number of at least 0"):
        LatentTreeConfig(heads_loss_weight=weight)
    with pytest.raises(ValueError, match="`impossible_heads` must be 'error' or 'skip', got 'leave'"):
        LatentTreeConfig(impossible_heads="leave")


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_accumulated_batches_weigh_heads_as_one_batch(share, shape):
    """As the Trainer counts: the labels of all accumulated batches."""
    values = torch.rand(8)
    labels = torch.zeros(2, *shape, dtype=torch.long)
    labels.view(2, 4, -1)[:, int(4 * share) :] = -100
    count = (labels != -100).sum()
    parts = [mean_heads_loss(values[4 * part : 4 * part + 4], labels[part], count) for part in range(2)]
    torch.testing.assert_close(sum(parts), values.mean())
    # On several devices in one process, each gets one row of it.
    torch.testing.assert_close(mean_heads_loss(values[:4], labels[0], count.view(1, 1)), parts[0])


def test_accumulated_batches_of_heads_alone(tiny_bert, wordpiece, tmp_path):
    state = {name: value.clone() for name, value in tiny_bert.state_dict().items()}
    weights = []
    for size in (4, 2):
        tiny_bert.load_state_dict(state)
        torch.manual_seed(2)
        model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="marginals")
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        steps = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "max_steps": 2}
        trainer_of(model, wordpiece, tmp_path, **steps, optim="sgd", learning_rate=0.1, save_strategy="no").train()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-5)


@pytest.fixture
def counted_anew(monkeypatch):
    monkeypatch.setattr(losses, "_skipped", 0)


def test_impossible_trees_are_an_error_or_are_skipped_and_counted(counted_anew, tiny_bert, wordpiece):
    inputs = wordpiece([TEXTS[0]] * 3, return_tensors="pt")
    heads = torch.tensor([HEADS[0], CROSSING, CROSSING])
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="marginals").eval()
    with pytest.raises(ValueError, match=r'heads\[1\] are those of no tree.*`projective=False`.*`impossible_heads="skip"`'):
        model(**inputs, heads=heads)
    model.config.impossible_heads = "skip"
    with pytest.warns(UserWarning, match="skipped, 2 so far") as told:
        output = model(**inputs, heads=heads)
    assert len(told) == 1
    left_out = model(**inputs, heads=torch.tensor([HEADS[0], [-100] * 4, [-100] * 4]))
    torch.testing.assert_close(output.heads_loss, left_out.heads_loss)
    assert output.heads_loss.count_nonzero() == 1
    gradients = [torch.autograd.grad(one.loss, model.tree.scorer.bilinear)[0] for one in (output, left_out)]
    torch.testing.assert_close(*gradients)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(10):
            model(**inputs, heads=heads)
    assert [str(one.message).split(" so far")[0].split()[-1] for one in told] == ["10"]


def test_of_a_pair_one_sentence_is_skipped(counted_anew):
    scores, lengths = torch.randn(1, 2, 4, 5), torch.tensor([[4, 4]])
    both, other = torch.tensor([[CROSSING, HEADS[0]]]), torch.tensor([[[-100] * 4, HEADS[0]]])
    with pytest.raises(ValueError, match=r"heads\[0, 0\] are those of no tree"):
        tree_nll(DependencyTree(), scores, lengths, both)
    with pytest.warns(UserWarning, match="skipped, 1 so far"):
        skipped = tree_nll(DependencyTree(), scores, lengths, both, "skip")
    torch.testing.assert_close(skipped, tree_nll(DependencyTree(), scores, lengths, other))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_impossible_by_the_shape_of_trees_and_not_by_their_scores(scale):
    """A gold tree that the model finds very unlikely is one all the same; partial ones, too."""
    likely = torch.full((1, 3, 4), -scale)
    likely[0, :, 0] = scale
    for heads in ([[2, 3, 0]], [[2, -100, -100]]):
        loss = tree_nll(DependencyTree(), likely, torch.tensor([3]), torch.tensor(heads))
        assert loss.isfinite()
        assert loss > scale
