"""One run: a classifier of sentiment by a fifth of the words, or by all of them, and how good its reasons are."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from quiet_trainer import quiet_trainer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from upper_layers import learn_upper_layers

from hf_latent import (
    BiLstmModel,
    DataCollatorForLatentTrees,
    LatentSelectionForSequenceClassification,
    Subset,
    encode_words,
)
from hf_latent.data.sentiment_trees import NEUTRAL, load_sentiment_trees
from hf_latent.metrics import load_metric
from hf_latent.training import ScheduleCallback, encoder_parameter_groups, linear

FILES = {"train": "train.txt.gz", "validation": "dev.txt.gz", "test": "test.txt.gz"}
BATCH, TOGETHER = 32, 64
# Layers of a pretrained encoder that do not learn, from below; nor do the embeddings.
FROZEN = 3
SHARE = 0.2

Rank = Callable[[LatentSelectionForSequenceClassification, dict[str, Tensor]], Tensor]


def read(folder: Path) -> dict[str, Dataset]:
    """The sentences that are not neutral, their words, and what each word by itself is.

    What is in another split as well is not learned from: some files of training sentences have those of validation in them.
    """
    parts = {split: load_sentiment_trees(folder / file, words=True) for split, file in FILES.items()}
    others = {text for split, part in parts.items() if split != "train" for text in part["text"]}
    own = [place for place, text in enumerate(parts["train"]["text"]) if text not in others]
    return {**parts, "train": parts["train"].select(own)}


def features(sentences: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    return Dataset.from_dict(encode_words(tokenizer, sentences["words"], labels=sentences["label"]))


def new_model(run: dict[str, Any], source: str, parts: dict[str, Dataset]) -> tuple[Any, PreTrainedTokenizerBase]:
    if run["encoder"] == "word vectors":
        vocabulary = {word.lower() for part in parts.values() for own in part["words"] for word in own}
        encoder, tokenizer = BiLstmModel.from_word_vectors(source, vocabulary, hidden_size=100, freeze_embeddings=True)
    else:
        encoder, tokenizer = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
        learn_upper_layers(encoder, FROZEN)
    estimator = None if run["row"] == "none" else run["row"]
    options = {"estimator": estimator, "estimator_options": run.get("options"), "dropout": 0.1, **run.get("config", {})}
    model = LatentSelectionForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=2, at_least=SHARE, **options)
    return model, tokenizer


def train(sources: dict[str, str], folder: str, /, **run: Any) -> dict[str, Any]:
    """The figures of one run, after its last step, on validation and test data."""
    torch.set_num_threads(1)
    set_seed(run["seed"])
    parts = read(Path(folder))
    model, tokenizer = new_model(run, sources[run["encoder"]], parts)
    rate = run["learning_rate"]
    own_rate = rate if run["encoder"] == "word vectors" else rate / 10
    arguments = {
        "max_steps": run["steps"],
        "per_device_train_batch_size": BATCH,
        "train_sampling_strategy": "group_by_length",
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "logging_strategy": "steps",
        "logging_steps": max(run["steps"] // 5, 1),
        "seed": run["seed"],
    }
    collator = DataCollatorForLatentTrees(tokenizer)
    trainer = quiet_trainer(
        model,
        torch.optim.AdamW(encoder_parameter_groups(model, rate, own_rate, weight_decay=0.01)),
        arguments,
        train_dataset=features(parts["train"], tokenizer),
        data_collator=collator,
        processing_class=tokenizer,
    )
    if run.get("entropy_bonus"):
        trainer.add_callback(ScheduleCallback(entropy_bonus=linear(run["entropy_bonus"], 0.0)))
    started = time.perf_counter()
    trainer.train()
    found: dict[str, Any] = {"seconds": time.perf_counter() - started}
    found["losses"] = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    ranks: dict[str, Rank] = {"own": own_choice}
    if model.config.estimator is None:
        ranks = {"random": by_chance, "attention": by_attention, "gradient": by_gradient}
    for name in ("validation", "test"):
        batches = DataLoader(features(parts[name], tokenizer), TOGETHER, collate_fn=collator)
        found[name] = {way: figures(model, batches, parts[name]["word_labels"], choose) for way, choose in ranks.items()}
    return found


class Answers(NamedTuple):
    """Of some sentences: probabilities from all words, from those that are not chosen, from those that are; and these."""

    whole: Tensor
    without: Tensor
    alone: Tensor
    chosen: Tensor
    labels: Tensor


def answers(model: LatentSelectionForSequenceClassification, batches: DataLoader, choose: Rank) -> Iterator[Answers]:
    model.eval()
    for batch in batches:
        labels = batch.pop("labels")
        chosen = choose(model, batch)
        with torch.no_grad():
            every, rest = torch.ones_like(chosen), 1 - chosen
            whole, without, alone = (model(**batch, chosen=own).logits.softmax(-1) for own in (every, rest, chosen))
        yield Answers(whole, without, alone, chosen, labels)


def figures(model: Any, batches: DataLoader, word_labels: list[list[int]], choose: Rank) -> dict[str, float]:
    """In per cent: sentences that are right by the chosen words alone; chosen words that are marked as words of feeling, and
    how many of these are chosen; and how faithful the choice is."""
    found = list(answers(model, batches, choose))

    def accuracy(seen: str) -> float:
        right = [getattr(own, seen).argmax(1) == own.labels for own in found]
        return 100 * float(torch.cat(right).float().mean())

    rows = [row for own in found for row in own.chosen]
    chosen = marked = both = 0
    for row, own in zip(rows, word_labels, strict=True):
        feeling = torch.tensor(own) != NEUTRAL
        seen = row[: len(own)] > 0.5
        chosen, marked, both = chosen + int(seen.sum()), marked + int(feeling.sum()), both + int((feeling & seen).sum())
    metric = load_metric("rationale_faithfulness")
    predictions, without, alone = (torch.cat(own).tolist() for own in list(zip(*found, strict=True))[:3])
    faithful = metric.compute(predictions=predictions, without=without, alone=alone)
    assert faithful is not None
    return {
        "accuracy": accuracy("alone"),
        "accuracy with all words": accuracy("whole"),
        "precision": 100 * both / chosen,
        "recall": 100 * both / marked,
        **{name: 100 * value for name, value in faithful.items()},
    }


def own_choice(model: LatentSelectionForSequenceClassification, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).chosen


def highest(scores: Tensor, lengths: Tensor) -> Tensor:
    """As many words as the models choose, those with the highest scores."""
    return Subset(SHARE, share=True).argmax(scores.float(), lengths)


def by_chance(model: Any, batch: dict[str, Tensor]) -> Tensor:
    lengths = batch["word_ids"].amax(1) + 1
    return highest(torch.rand(len(lengths), int(lengths.max())), lengths)


def by_attention(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The weights by which the classifier makes one vector of the words."""
    seen: list[Tensor] = []
    hook = model.pooling.query.register_forward_hook(lambda module, inputs, output: seen.append(output[:, :, 0].detach()))
    with torch.no_grad():
        lengths = model(**batch).num_words
    hook.remove()
    return highest(seen[-1], lengths)


def by_gradient(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """How much the class that is found becomes less likely when a word is taken away, to first order: -Σ_i x_i · ∂/∂x_i."""
    lengths = batch["word_ids"].amax(1) + 1
    chosen = torch.ones(len(lengths), int(lengths.max()), requires_grad=True)
    logits = model(**batch, chosen=chosen).logits
    best = logits.log_softmax(-1).amax(1).sum()
    (gradient,) = torch.autograd.grad(best, chosen)
    return highest(gradient, lengths)
