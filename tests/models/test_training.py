"""Training as people train: adapted, in half precision, compiled, searched."""

import warnings

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_latent import LatentTreeForSequenceClassification, TreeStatisticsCallback, parse
from hf_latent.model_cards import ModelCardCallback

# All that stands outside the encoder, as the README names it for LoRA.
NEW_MODULES = ["latent_tree.tree", "latent_tree.head_averaging", "decoder", "pooling", "classifier"]
TEXTS = ["a very good film .", "not unwatchable", "bad", "a good , very good unwatchable film ."] * 4


def data_of(tokenizer) -> Dataset:
    return Dataset.from_dict({**tokenizer(TEXTS), "labels": [1, 0, 0, 1] * 4})


def trainer_of(model, tokenizer, folder, callbacks=(), **options) -> Trainer:
    given = {"num_train_epochs": 4, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True} | options
    data = data_of(tokenizer)
    return Trainer(
        model,
        TrainingArguments(folder, **given),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize("estimator", ["marginals", "spigot", "spigot_ce", "sparsemap", "perturb_and_map"])
def test_half_precision(tiny_bert, wordpiece, tmp_path, estimator):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
    trainer = trainer_of(model, wordpiece, tmp_path, bf16=True, num_train_epochs=15)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_the_best_model_is_loaded_at_the_end_and_training_stops_early(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_eg")
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 40}
    stop = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=0.05)
    trainer = trainer_of(model, wordpiece, tmp_path, [stop], metric_for_best_model="loss", greater_is_better=False, **options)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) < 40
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-5)


def test_hyperparameter_search(tiny_bert, wordpiece, tmp_path):
    """The Trainer makes a new model for each trial, by `model_init`, with what the trial proposes."""
    pytest.importorskip("optuna")
    tiny_bert.save_pretrained(tmp_path / "encoder")
    wordpiece.save_pretrained(tmp_path / "encoder")
    tried = []

    def model_init(trial=None):
        step_size = trial.suggest_float("step_size", 0.1, 1.0) if trial is not None else 1.0
        tried.append(step_size)
        return LatentTreeForSequenceClassification.from_encoder(
            tmp_path / "encoder", num_labels=2, estimator="spigot", estimator_options={"step_size": step_size}
        )

    data = data_of(wordpiece)
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(tmp_path / "out", max_steps=2, report_to="none", use_cpu=True, save_strategy="no"),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(wordpiece),
        processing_class=wordpiece,
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        n_trials=3,
        direction="minimize",
        backend="optuna",
    )
    assert 1e-4 <= best.hyperparameters["learning_rate"] <= 1e-2
    assert best.hyperparameters["step_size"] in tried
    assert len(set(tried)) >= 4  # 1.0 for the Trainer itself, then one a trial


@pytest.mark.parametrize("estimator", ["marginals", "spigot"])
def test_compiled_by_the_trainer(tiny_bert, wordpiece, tmp_path, estimator):
    """The same weights as without. (A backend that needs no C++ compiler.)"""
    state = {name: value.clone() for name, value in tiny_bert.state_dict().items()}
    weights = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        tiny_bert.load_state_dict(state)
        torch.manual_seed(3)
        model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer_of(model, wordpiece, tmp_path, num_train_epochs=1, optim="sgd", **options).train()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)


def with_lora(model):
    """LoRA on the encoder; all that is new stands outside it, and is trained in full."""
    import peft

    config = peft.LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=NEW_MODULES)
    adapted = peft.get_peft_model(model, config)
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in trainable)
    assert any("scorer.bilinear" in name for name in trainable)
    assert not any("encoder" in name and "lora" not in name for name in trainable)
    return adapted


def test_lora_on_the_encoder_with_the_parser_trained_in_full(tiny_bert, wordpiece, tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot")
    model.save_pretrained(tmp_path / "base")
    adapted = with_lora(model)
    trainer = trainer_of(adapted, wordpiece, tmp_path / "out", num_train_epochs=15)
    trainer.add_callback(TreeStatisticsCallback(trainer, TEXTS))
    trainer.add_callback(ModelCardCallback(trainer, "a very good film ."))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    assert any("trees/depth" in entry for entry in trainer.state.log_history)
    assert (tmp_path / "out" / "tree.svg").is_file()
    adapted.save_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    inputs = wordpiece(TEXTS[:4], padding=True, return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs).logits, adapted.eval()(**inputs).logits)
    trees = parse(adapted, wordpiece, TEXTS[:4])
    served = pipeline("latent-tree-parsing", model=adapted, tokenizer=wordpiece, device="cpu")(TEXTS[:4])
    assert [list(tree.heads) for tree in trees] == [one["heads"] for one in served]


def test_a_frozen_encoder(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce")
    model.base_model.encoder.requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer_of(model, wordpiece, tmp_path).train()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("encoder." in name or name.endswith("pooling.weights.bias")), name


def test_what_an_estimator_carries_over_is_saved_with_the_weights(tiny_bert, wordpiece, tmp_path):
    """The moving average of losses that the score function starts its next batch from."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="score_function")
    state = model.base_model.tree.estimator_state
    assert state.isnan()
    inputs, labels = wordpiece(TEXTS, padding=True, return_tensors="pt"), torch.tensor([1, 0, 0, 1] * 4)
    model.train()
    losses = []
    for _ in range(2):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        losses.append(loss.item())
        assert state.item() == pytest.approx(losses[0] if len(losses) == 1 else 0.99 * losses[0] + 0.01 * losses[1])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).train()
    assert torch.equal(loaded.base_model.tree.estimator_state, state)
    loaded(**inputs, labels=labels).loss.backward()
    assert not torch.equal(loaded.base_model.tree.estimator_state, state)
    assert type(model).from_pretrained(None, config=model.config, state_dict={}).base_model.tree.estimator_state.isnan()


def test_a_loss_that_leaves_the_tree_out_is_told(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce").train()
    inputs, labels = wordpiece(TEXTS, padding=True, return_tensors="pt"), torch.tensor([1, 0, 0, 1] * 4)
    for with_the_tree in (True, False):
        output = model(**inputs, labels=labels)
        loss = torch.nn.functional.cross_entropy(output.logits, labels)
        (loss + output.latent_loss.mean() if with_the_tree else loss).backward()
    with pytest.warns(UserWarning, match="which learned nothing.*add `output.latent_loss.mean"):
        model(**inputs, labels=labels).loss.backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**inputs, labels=labels)


def test_labels_that_the_trainer_takes_away(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce")
    with pytest.raises(ValueError, match="It does so for `label_smoothing_factor`"):
        trainer_of(model, wordpiece, tmp_path, label_smoothing_factor=0.1).train()
