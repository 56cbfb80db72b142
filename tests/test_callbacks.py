"""Trees in the logs."""

import math

import pytest
from datasets import Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from hf_latent import LatentTreeForSequenceClassification, TreeStatisticsCallback, parse
from hf_latent.trees import tree_statistics

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
