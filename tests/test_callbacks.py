"""Trees in the logs."""

import math

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from torch import nn
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from hf_latent import (
    HeadAveraging,
    LatentTreeForSequenceClassification,
    LatentTreeLayer,
    RelianceCallback,
    TreeStatisticsCallback,
    parse,
)
from hf_latent.callbacks import collapses
from hf_latent.diagnostics import reliance
from hf_latent.model_cards import ModelCardCallback
from hf_latent.reliance import KINDS
from hf_latent.trees import Tree, tree_statistics

TEXTS = ["a very good film .", "not unwatchable", "bad", "a good , very good unwatchable film ."]


def new_trainer(model, tokenizer, tmp_path, **options) -> Trainer:
    data = Dataset.from_dict({**tokenizer(TEXTS), "labels": [1, 0, 0, 1]})
    arguments = TrainingArguments(
        tmp_path, num_train_epochs=3, eval_strategy="epoch", report_to="none", use_cpu=True, learning_rate=1e-2
    )
    return Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        **{"processing_class": tokenizer} | options,
    )


def test_tree_statistics_are_logged_at_each_evaluation(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    trainer = new_trainer(model, wordpiece, tmp_path)
    trainer.add_callback(TreeStatisticsCallback(trainer, TEXTS, batch_size=3))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "trees/depth" in entry]
    assert len(logged) == 3
    assert ["trees/agreement" in entry for entry in logged] == [False, True, True]
    assert all(0 <= entry["trees/agreement"] <= 1 for entry in logged[1:])
    trees = parse(model, wordpiece, TEXTS)
    assert logged[-1]["trees/depth"] == pytest.approx(tree_statistics(trees)["depth"])
    assert logged[-1]["trees/flat"] == pytest.approx(tree_statistics(trees)["flat"])
    # No word has more than eight heads to choose from.
    assert all(0 <= entry["trees/entropy"] <= math.log(9) for entry in logged)


@pytest.mark.parametrize(
    ("trees", "entropy", "found"),
    [
        ([Tree(tuple("abc"), (0, 1, 1)), Tree(tuple("ab"), (0, 1))], 0.5, {"flat"}),
        ([Tree(tuple("abc"), (0, 1, 2)), Tree(tuple("abcd"), (2, 3, 4, 0))], 0.5, {"chain"}),
        ([Tree(tuple("abc"), (0, 1, 1)), Tree(tuple("abc"), (0, 1, 2))], 1e-4, {"certain"}),
        ([Tree(tuple("abc"), (2, 0, 2)), Tree(tuple("abcd"), (2, 0, 2, 3))], 0.5, set()),
        ([Tree(tuple("ab"), (0, 1))], 0.5, set()),  # all trees of two words are flat, and chains
    ],
)
def test_how_a_choice_collapses(trees, entropy, found):
    assert collapses(trees, entropy) == found


def test_a_collapse_is_warned_of_once(tiny_bert, wordpiece, tmp_path, caplog):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    trainer = new_trainer(model, wordpiece, tmp_path)
    trainer.add_callback(TreeStatisticsCallback(trainer, TEXTS))
    model.base_model.tree.scorer.root.register_hook(torch.zeros_like)
    model.base_model.tree.scorer.bilinear.data.zero_()
    model.base_model.tree.scorer.bilinear.requires_grad_(False)
    trainer.train()  # all scores are alike, or nearly
    assert not [record for record in caplog.records if "certain" in record.message]
    model.base_model.tree.scorer.bilinear.data.fill_(1e3)
    trainer.train()
    warned = [record.message for record in caplog.records if "the choice of trees is certain" in record.message]
    assert len(warned) == 1
    assert "entropy_bonus=linear(0.5, until=0.2)" in warned[0]


def test_several_evaluation_sets_are_looked_at_once(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals")
    trainer = new_trainer(model, wordpiece, tmp_path)
    trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.eval_dataset}
    trainer.add_callback(TreeStatisticsCallback(trainer, TEXTS))
    trainer.train()
    assert len([entry for entry in trainer.state.log_history if "trees/depth" in entry]) == 3


def test_what_it_needs(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    with pytest.raises(ValueError, match="has no tokenizer: pass it `processing_class=tokenizer`"):
        TreeStatisticsCallback(new_trainer(model, wordpiece, tmp_path, processing_class=None), TEXTS)
    with pytest.raises(ValueError, match="must be a list of sentences"):
        TreeStatisticsCallback(new_trainer(model, wordpiece, tmp_path), "a film")
    with pytest.raises(ValueError, match="must be a list of sentences"):
        TreeStatisticsCallback(new_trainer(model, wordpiece, tmp_path), ["", " "])
    plain = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=None)
    with pytest.raises(ValueError, match="no latent tree"):
        TreeStatisticsCallback(new_trainer(plain, wordpiece, tmp_path), TEXTS)


class Events(TrainerCallback):
    """All that a callback can see of evaluations."""

    def __init__(self) -> None:
        self.seen = []

    def on_evaluate(self, args, state, control, metrics=None, **kwargs) -> None:
        self.seen.append((state.global_step, metrics["eval_loss"]))

    def on_prediction_step(self, args, state, control, **kwargs) -> None:
        self.seen.append("prediction")

    def on_predict(self, args, state, control, **kwargs) -> None:
        self.seen.append("predict")


def accuracy(prediction) -> dict[str, float]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    right = (logits.argmax(-1) == prediction.label_ids).mean()
    return {"accuracy": right, "error": 1 - right}


def new_model(tiny_bert, wordpiece, estimator="spigot", **options) -> LatentTreeForSequenceClassification:
    torch.manual_seed(2)
    options = {"num_labels": 2, "estimator": estimator} | options
    return LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, **options)


def trees_logged(trainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "trees/reliance" in entry]


def test_reliance_is_logged_when_training_ends(tiny_bert, wordpiece, tmp_path):
    trainer = new_trainer(new_model(tiny_bert, wordpiece), wordpiece, tmp_path, compute_metrics=accuracy)
    callback = RelianceCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    (logged,) = trees_logged(trainer)
    names = {"trees/reliance", *(f"trees/accuracy_{kind}" for kind in ("own", *KINDS))}
    assert {name for name in logged if name.startswith("trees/")} == names
    assert logged["step"] == trainer.state.global_step
    found = reliance(trainer.model, lambda: trainer.evaluate()["eval_accuracy"], repeats=1)
    assert callback.measured.scores == found.scores
    assert callback.measured.metric == "accuracy"
    assert logged["trees/reliance"] == found.reliance == logged["trees/accuracy_own"] - logged["trees/accuracy_random"]


def test_reliance_of_the_best_model_and_of_a_second_training(tiny_bert, wordpiece, tmp_path):
    trainer = new_trainer(new_model(tiny_bert, wordpiece), wordpiece, tmp_path)
    trainer.args.save_strategy, trainer.args.load_best_model_at_end = "epoch", True
    trainer.args.metric_for_best_model, trainer.args.greater_is_better = "loss", True  # so that the first is the best
    callback = RelianceCallback(trainer, kinds=["random"], each_evaluation=True)
    trainer.add_callback(callback)
    trainer.train()
    assert trainer.state.best_global_step == 1
    assert [entry["step"] for entry in trees_logged(trainer)] == [1, 2, 3, 3]
    assert callback.measured.own == pytest.approx(trainer.state.best_metric)
    assert callback.measured.own != pytest.approx(trees_logged(trainer)[2]["trees/loss_own"])
    trainer.args.load_best_model_at_end, trainer.args.num_train_epochs = False, 1
    trainer.train()
    assert [entry["step"] for entry in trees_logged(trainer)] == [1]


@pytest.mark.parametrize("callback_first", [False, True])
def test_training_is_what_it_would_be_without(tiny_bert, wordpiece, tmp_path, callback_first):
    """Its weights, random numbers and logs, the choice of the best model, and what other callbacks see."""
    state, runs = tiny_bert.state_dict(), []
    state = {name: value.clone() for name, value in state.items()}
    for measured in (False, True):
        tiny_bert.load_state_dict(state)
        events, stop = Events(), EarlyStoppingCallback(early_stopping_patience=2)
        model = new_model(tiny_bert, wordpiece, "perturb_and_map", dropout=0.3)
        trainer = new_trainer(model, wordpiece, tmp_path, compute_metrics=accuracy)
        trainer.args.save_strategy, trainer.args.load_best_model_at_end = "epoch", True
        trainer.args.metric_for_best_model, trainer.args.num_train_epochs = "accuracy", 5
        trainer.args.greater_is_better, trainer.args.per_device_train_batch_size = True, 2
        first, last = (measured and callback_first), (measured and not callback_first)
        for wanted, others in ((first, [events, stop]), (last, [])):
            if wanted:
                trainer.add_callback(RelianceCallback(trainer, each_evaluation=True, kinds=["random", "shuffled"]))
            for other in others:
                trainer.add_callback(other)
        trainer.train()
        timed = ("_runtime", "_per_second")
        history = [
            {name: value for name, value in entry.items() if not name.endswith(timed)}
            for entry in trainer.state.log_history
            if "trees/reliance" not in entry
        ]
        best = trainer.state.best_metric, trainer.state.best_global_step, trainer.is_in_train, model.training
        runs.append((history, events.seen, best, torch.get_rng_state().tolist(), model.state_dict()))
        if measured:
            assert len(trees_logged(trainer)) >= 3
    assert runs[0][:-1] == runs[1][:-1]
    for name, value in runs[0][-1].items():
        assert torch.equal(value, runs[1][-1][name]), name


def test_reliance_at_each_evaluation_and_once_for_the_same_weights(tiny_bert, wordpiece, tmp_path):
    trainer = new_trainer(new_model(tiny_bert, wordpiece), wordpiece, tmp_path)
    trainer.add_callback(RelianceCallback(trainer, kinds=["random"], each_evaluation=True))
    trainer.train()
    assert [entry["step"] for entry in trees_logged(trainer)] == [1, 2, 3]
    trainer.evaluate()
    assert len(trees_logged(trainer)) == 3
    trainer.args.num_train_epochs = 1
    trainer.train()
    assert [entry["step"] for entry in trees_logged(trainer)] == [1]
    logged = trees_logged(trainer)[0]
    assert logged["trees/loss_own"] == [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    assert logged["trees/reliance"] == logged["trees/loss_random"] - logged["trees/loss_own"]  # less is better


class Averaging(torch.optim.SGD):
    """One that has other weights for evaluation, as schedule-free optimizers do."""

    def eval(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.zero_()


def test_an_optimizer_with_weights_for_evaluation(tiny_bert, wordpiece, tmp_path):
    model = new_model(tiny_bert, wordpiece)
    trainer = new_trainer(model, wordpiece, tmp_path, optimizers=(Averaging(model.parameters(), lr=0.01), None))
    trainer.args.eval_strategy = "no"
    trainer.add_callback(RelianceCallback(trainer))
    trainer.train()
    assert model.classifier.weight.any()
    assert trainer.optimizer is not None


@pytest.mark.parametrize("card_first", [False, True])
def test_reliance_on_the_card(tiny_bert, wordpiece, tmp_path, card_first):
    trainer = new_trainer(new_model(tiny_bert, wordpiece), wordpiece, tmp_path, compute_metrics=accuracy)
    callbacks = [RelianceCallback(trainer, "eval_error", greater_is_better=False), ModelCardCallback(trainer, "a film")]
    for callback in callbacks[:: -1 if card_first else 1]:
        trainer.add_callback(callback)
    trainer.train()
    assert len(trees_logged(trainer)) == 1
    found = callbacks[0].measured
    assert found.reliance == found.replaced["random"] - found.own
    assert f"| error with its own trees | {found.own:.4f} |" in ModelCard.load(tmp_path / "README.md").text
    trainer.create_model_card()
    assert "| error with flat trees |" in ModelCard.load(tmp_path / "README.md").text


class OfAUser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.tree, self.averaging = nn.Embedding(20, 8), LatentTreeLayer(8), HeadAveraging(8)
        self.output = nn.Linear(16, 2)

    def forward(self, input_ids, attention_mask, labels):
        words = self.embedding(input_ids)
        tree = self.tree(words, attention_mask.sum(1), lambda arcs: self.losses(words, arcs, labels)[0])
        losses, logits = self.losses(words, tree.arcs, labels)
        return {"loss": (losses + tree.loss).mean(), "logits": logits}

    def losses(self, words, arcs, labels):
        logits = self.output(self.averaging(words, arcs).mean(1))
        return nn.functional.cross_entropy(logits, labels, reduction="none"), logits


def test_reliance_of_a_network_of_ones_own(wordpiece, tmp_path):
    trainer = new_trainer(OfAUser(), wordpiece, tmp_path, compute_metrics=accuracy)
    trainer.eval_dataset = {"one": trainer.eval_dataset.select([0, 1]), "two": trainer.eval_dataset}
    with pytest.raises(ValueError, match="several sets to evaluate on: pass `eval_dataset`, one of 'one', 'two'"):
        RelianceCallback(trainer)
    callbacks = [RelianceCallback(trainer, "loss", eval_dataset=name) for name in ("one", "two")]
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    last = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert [callback.measured.own for callback in callbacks] == [last["eval_one_loss"], last["eval_two_loss"]]


def test_a_metric_that_there_is_not(tiny_bert, wordpiece, tmp_path, caplog):
    trainer = new_trainer(new_model(tiny_bert, wordpiece), wordpiece, tmp_path, compute_metrics=accuracy)
    callback = RelianceCallback(trainer, "f1")
    trainer.add_callback(callback)
    handler = trainer.callback_handler
    trainer.train()  # which does not fail for it
    assert "has no metric 'f1'. It has: " in caplog.text
    assert "accuracy, error" in caplog.text
    assert callback.measured is None
    assert trainer.callback_handler is handler
    callback.each_evaluation = True
    with pytest.raises(ValueError, match="has no metric 'f1'"):
        trainer.train()


def test_what_reliance_needs(tiny_bert, wordpiece, tmp_path):
    trainer = new_trainer(new_model(tiny_bert, wordpiece), wordpiece, tmp_path)
    with pytest.raises(ValueError, match="`kinds` must be some of"):
        RelianceCallback(trainer, kinds=["flat"])
    trainer.eval_dataset = None
    with pytest.raises(ValueError, match="no data to evaluate on"):
        RelianceCallback(trainer)
    plain = new_trainer(new_model(tiny_bert, wordpiece, None), wordpiece, tmp_path)
    with pytest.raises(ValueError, match="no latent tree"):
        RelianceCallback(plain)
