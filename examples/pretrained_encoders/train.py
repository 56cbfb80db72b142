"""One run: a pretrained encoder, of which the upper layers learn, with or without a latent tree on top of it."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quiet_trainer import quiet_trainer
from tasks import LABELS, Texts, contrasts, read
from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding, Trainer, set_seed
from upper_layers import learn_upper_layers

from hf_latent import LatentTreeForPairClassification, LatentTreeForSequenceClassification, parse
from hf_latent.diagnostics import reliance
from hf_latent.training import ScheduleCallback, encoder_parameter_groups, linear
from hf_latent.trees import tree_statistics

MODELS = {"sst2": LatentTreeForSequenceClassification, "sick": LatentTreeForPairClassification}
BATCH = 32
# Sentences whose trees are kept, so that those of several seeds can be compared.
KEPT = 200
KINDS = ("random", "flat", "shuffled")


def new_model(run: dict[str, Any], encoder_folder: str, tokenizer) -> torch.nn.Module:
    encoder = AutoModel.from_pretrained(encoder_folder)
    learn_upper_layers(encoder, run["frozen"])
    estimator = None if run["row"] == "none" else run["row"]
    options = {"estimator": estimator, "estimator_options": run.get("options"), "dropout": 0.1, **run.get("config", {})}
    return MODELS[run["task"]].from_encoder(encoder, tokenizer, num_labels=len(LABELS[run["task"]]), **options)


def train(encoder_folder: str, folder: str, /, **run: Any) -> dict[str, Any]:
    """The figures of one run, after its last epoch. Nothing is chosen on the way."""
    torch.set_num_threads(1)
    set_seed(run["seed"])
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    texts = read(run["task"], Path(folder))
    examples = texts["train"] if run["examples"] is None else texts["train"].some(run["examples"], seed=run["seed"])
    model = new_model(run, encoder_folder, tokenizer)
    groups = encoder_parameter_groups(model, run["learning_rate"], run["encoder_rate"], weight_decay=0.01)
    arguments = {
        "num_train_epochs": run["epochs"],
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 100,
        "train_sampling_strategy": "group_by_length",
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "logging_strategy": "epoch",
        "seed": run["seed"],
    }
    trainer = quiet_trainer(
        model,
        torch.optim.AdamW(groups),
        arguments,
        train_dataset=examples.dataset(tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    if "entropy_bonus" in run:
        start, end, until = run["entropy_bonus"]
        trainer.add_callback(ScheduleCallback(entropy_bonus=linear(start, end, until=until)))
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    parts = {name: part for name, part in texts.items() if name != "train"}
    losses = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "losses": losses, **figures(trainer, tokenizer, parts)}


def figures(trainer: Trainer, tokenizer, parts: dict[str, Texts]) -> dict[str, Any]:
    """Accuracies on all parts, and what the trees are like and worth on validation data."""
    predicted = {name: _predicted(trainer, texts.dataset(tokenizer)) for name, texts in parts.items()}
    right = {name: predicted[name] == np.array(texts.labels) for name, texts in parts.items()}
    found: dict[str, Any] = {"accuracy": {name: float(own.mean()) for name, own in right.items()}}
    if len(parts["test"].sentences[0]) == 2:
        groups = contrasts(parts["test"])
        found["accuracy"]["contrasts"] = float(np.mean([right["test"][places].all() for places in groups]))
    if trainer.model.config.estimator is None:
        return found
    data, labels = parts["validation"].dataset(tokenizer), np.array(parts["validation"].labels)
    evaluate = partial(_accuracy, trainer, data, labels)
    measured = reliance(trainer.model, evaluate, KINDS, repeats=2, metric="accuracy")
    sentences = [sentence for both in parts["validation"].sentences for sentence in both]
    trees = parse(trainer.model, tokenizer, sentences[:KEPT])
    return {**found, "trees": measured.scores, "shape": tree_statistics(trees), "heads": [tree.heads for tree in trees]}


def _predicted(trainer: Trainer, data) -> np.ndarray:
    trainer.args.train_sampling_strategy = "sequential"  # which tests follow as well: grouped by length, they come in any order
    output = trainer.predict(data).predictions
    return (output[0] if isinstance(output, tuple) else output).argmax(-1)


def _accuracy(trainer: Trainer, data, labels: np.ndarray) -> float:
    return float((_predicted(trainer, data) == labels).mean())
