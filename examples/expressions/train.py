"""One run: a network learns to answer expressions of up to 20 tokens with the stock Trainer, and is tested on longer ones."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from model import SequenceModel, TreeModel
from quiet_trainer import quiet_trainer
from tasks import LONGEST, Task
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, set_seed

from hf_latent import DependencyTree, get_estimator
from hf_latent.data.expressions import Expression
from hf_latent.training import ScheduleCallback, length_curriculum, linear, parameter_groups
from hf_latent.training.schedules import Schedule

KINDS = {"projective": DependencyTree(True, True), "non-projective": DependencyTree(False, True)}
BATCH, EXPRESSIONS, OF_FILES = 64, 50_000, 2000
WITH_NOISE = ("perturb_and_map", "perturbed_marginals", "imle")
SCALE = {"bilstm": {"size": 256, "layers": 2}, "transformer": {"size": 128, "layers": 4}}


def new_model(task: Task, run: dict[str, Any]) -> torch.nn.Module:
    if run["row"] in SCALE:
        return SequenceModel(task, run["row"], **SCALE[run["row"]], dropout=run.get("dropout", 0.0))
    if run["row"] == "gold trees":
        return TreeModel(task, None, KINDS["projective"])
    structure = KINDS[run["kind"]] if run.get("single_root", True) else DependencyTree(run["kind"] == "projective")
    estimator = get_estimator(run["row"], **run.get("options", {}))
    return TreeModel(task, estimator, structure, run.get("scorer", "counter"), run.get("kinds", True))


def training_data(task: Task, steps: int, seed: int, curriculum: bool) -> Dataset:
    expressions = task.generate(EXPRESSIONS, LONGEST, seed=1)
    data = Dataset.from_list([row_of(task, one) for one in expressions]).with_format("torch")
    lengths = [len(one.tokens) for one in expressions]
    shares = {} if curriculum else {"start": 1.0}
    return data.select(length_curriculum(lengths, steps * BATCH / len(lengths), seed=seed, **shares))


def row_of(task: Task, one: Expression) -> dict[str, Any]:
    return {"input_ids": [task.tokens.index(token) for token in one.tokens], "labels": one.answer, "gold_heads": one.heads}


def collate(task: Task, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    def padded(name: str, value: int) -> Tensor:
        return pad_sequence([torch.as_tensor(row[name]) for row in rows], batch_first=True, padding_value=value)

    labels = torch.as_tensor([row["labels"] for row in rows])
    return {"input_ids": padded("input_ids", len(task.tokens)), "gold_heads": padded("gold_heads", -1), "labels": labels}


def train(task: Task, paths: dict[str, str], /, **run: Any) -> dict[str, Any]:
    """The figures of one run, tested on its `files`, too, which `paths` tell where to find."""
    trainer = new_trainer(task, run)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    losses = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    model = trainer.model
    figures = {name: evaluate(task, model, expressions) for name, expressions in all_tests(task, run, paths).items()}
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {"tests": figures, "losses": losses, "seconds": seconds, "parameters": parameters}


def new_trainer(task: Task, run: dict[str, Any]) -> Trainer:
    """What a run trains.

    At first, the trees' entropy is rewarded: otherwise all operands soon hang from the outermost operator, which answers half
    of the questions, and a decoder that never sees another tree has no use for one. At first, expressions are short. What the
    parser counts becomes exact over the first 60 % of the training; noise, of the estimators that have it, fades from 40 to
    80 %. `run` says what is left out of this.
    """
    torch.set_num_threads(1)
    set_seed(run["seed"])
    model, steps, without = new_model(task, run), run["steps"], run.get("without", [])
    latent = run["row"] not in (*SCALE, "gold trees")
    rate = run.get("learning_rate", 4e-3)
    rates = dict.fromkeys(["tree", "embeddings", "context"], 1e-3) if latent and "own learning rate" not in without else {}
    optimizer = torch.optim.AdamW(parameter_groups(model, rate, rates, weight_decay=0.01), fused=True)
    arguments = {
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": steps // 2, "decay_type": "linear"},
        "logging_strategy": "steps",
        "logging_steps": max(steps // 10, 1),
        "remove_unused_columns": False,
        "seed": run["seed"],
    }
    data = training_data(task, steps, run["seed"], "curriculum" not in without)
    trainer = quiet_trainer(model, optimizer, arguments, train_dataset=data, data_collator=partial(collate, task))
    if latent:
        trainer.add_callback(ScheduleCallback(**schedules(run["row"], without)))
    return trainer


def schedules(estimator: str, without: list[str]) -> dict[str, Schedule]:
    """What changes in the course of the training, but for what is left out. (Something always stays.)"""
    found: dict[str, Schedule] = {"entropy_bonus": linear(0.0 if "entropy bonus" in without else 0.5, until=1 / 6)}
    if "whole steps" not in without:
        found["counter_temperature"] = lambda done: 0.1 ** min(1.0, done / 0.6)
    if estimator in WITH_NOISE and "less noise" not in without:
        found["noise_scale"] = lambda done: 0.05 ** min(1.0, max(0.0, done / 0.4 - 1))
    return found


def all_tests(task: Task, run: dict[str, Any], paths: dict[str, str]) -> dict[str, list[Expression]]:
    """Validation (to choose by), the generated tests, and those of files."""
    known = {one.tokens for one in task.generate(EXPRESSIONS, LONGEST, seed=1)}
    found = {}
    for place, (name, (count, shape)) in enumerate([("validation", (1000, {"longest": LONGEST})), *task.tests.items()]):
        drawn = task.generate(count + count // 2, seed=100 + place, **{"depth": task.depth, **shape})
        found[name] = [one for one in drawn if one.tokens not in known][:count]
    for name in run["files"]:
        assert task.read_file is not None, f"There are no files of {task.name}."
        found[name] = task.read_file(Path(paths[name]))[:OF_FILES]
    return found


@torch.no_grad()
def evaluate(task: Task, model: torch.nn.Module, expressions: list[Expression]) -> dict[str, float]:
    """The share of answers and of edges that are right. A tree has one edge a word, so precision and recall are the same."""
    model.eval()
    answers = edges = words = 0
    by_length = sorted(expressions, key=lambda one: len(one.tokens))
    for start in range(0, len(by_length), 100):
        inputs = collate(task, [row_of(task, one) for one in by_length[start : start + 100]])
        output = model(**inputs)
        answers += int((output["logits"].argmax(1) == inputs["labels"]).sum())
        if "heads" in output:
            gold = inputs["gold_heads"]
            edges += int(((output["heads"] == gold) & (gold >= 0)).sum())
            words += int((gold >= 0).sum())
    model.train()
    return {"answers": answers / len(expressions), **({"edges": edges / words} if words else {})}
