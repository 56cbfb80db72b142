"""One run: parts of speech through a tree, of which some sentences have a gold one."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from quiet_trainer import quiet_trainer
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Trainer, set_seed
from upper_layers import learn_upper_layers

from hf_latent import DataCollatorForLatentTrees, LatentTreeForTokenClassification, encode_words
from hf_latent.estimators import Estimator, Latent, TaskLoss
from hf_latent.estimators.estimator import no_loss
from hf_latent.structures import Structure
from hf_latent.training import encoder_parameter_groups
from hf_latent.trees import Tree, read_conllu_sentences

BATCH = 16
# Longer sentences are not learned from: they take a large part of the time. They are tested.
LONGEST = 25
# The last of the training sentences, by which settings are chosen.
HELD_OUT = 300
EVALUATED_TOGETHER = 64
IGNORED = -100
PART_OF_SPEECH = 4  # the column
# Batches of which the sentences are drawn together, and put side by side by their length.
SORTED_TOGETHER = 50
# Layers of the encoder that do not learn, from below; nor do the embeddings.
FROZEN = 3


@dataclass(frozen=True)
class Treebank:
    """Trees, and of each word its part of speech, a number of `tags`."""

    trees: list[Tree]
    labels: list[list[int]]

    def select(self, places: Sequence[int]) -> "Treebank":
        return Treebank([self.trees[place] for place in places], [self.labels[place] for place in places])


def read(train: Path, test: Path) -> tuple[list[str], dict[str, Treebank]]:
    """The parts of speech, and sentences to learn from, to choose by (`validation`) and to test on."""
    files = {name: list(read_conllu_sentences(file)) for name, file in (("train", train), ("test", test))}
    tags = sorted({tag for sentences in files.values() for one in sentences for tag in one.column(PART_OF_SPEECH)})
    numbered = {
        name: Treebank(
            [one.tree() for one in sentences], [[tags.index(tag) for tag in one.column(PART_OF_SPEECH)] for one in sentences]
        )
        for name, sentences in files.items()
    }
    count = len(numbered["train"].trees)
    short = [place for place in range(count - HELD_OUT) if len(numbered["train"].trees[place].words) <= LONGEST]
    held_out = range(max(count - HELD_OUT, 0), count)
    parts = {"train": numbered["train"].select(short), "validation": numbered["train"].select(held_out)}
    return tags, {**parts, "test": numbered["test"]}


def endless(pool: list[int], draw: random.Random) -> Iterator[int]:
    """Through the pool again and again, in another order each time."""
    while True:
        yield from draw.sample(pool, len(pool))


def examples(kind: str, treebank: Treebank, trees: int | None, steps: int, seed: int) -> list[tuple[int, bool]]:
    """The sentences of all steps, one batch after another, and whether each shows its tree.

    With trees alone, all do, and with the task alone none does; with both, half of each batch does. Those that do are drawn
    from the first `trees` of an order that the seed draws; the others from all. Sentences of like length stand together.
    """
    draw = random.Random(seed)
    order = draw.sample(range(len(treebank.trees)), len(treebank.trees))
    pools = {True: endless(order[:trees], draw), False: endless(order, draw)}
    shares = {True: {"trees": BATCH, "task": 0, "both": BATCH // 2}[kind]}
    shares[False] = BATCH - shares[True]
    found = []
    for first in range(0, steps, SORTED_TOGETHER):
        batches: list[list[tuple[int, bool]]] = [[] for _ in range(min(SORTED_TOGETHER, steps - first))]
        for shows, share in shares.items():
            drawn = sorted(islice(pools[shows], share * len(batches)), key=lambda place: len(treebank.trees[place].words))
            for number, batch in enumerate(batches):
                batch += [(place, shows) for place in drawn[number * share : (number + 1) * share]]
        draw.shuffle(batches)
        found += [example for batch in batches for example in batch]
    return found


@dataclass(frozen=True)
class UntaughtMarginals(Estimator):
    """Marg(s) with no gradient: the task uses the tree, and does not teach it."""

    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """As the contract says."""
        return Latent(self.evaluate(structure, scores.detach(), lengths), no_loss(scores))

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As in training."""
        return structure.marginals(scores, lengths)


def new_model(
    encoder: str, tokenizer: PreTrainedTokenizerBase, tags: int, weight: float, taught: bool
) -> LatentTreeForTokenClassification:
    model = LatentTreeForTokenClassification.from_encoder(
        encoder,
        tokenizer,
        num_labels=tags,
        projective=False,
        single_root=True,
        arc_scorer="relative",
        arc_size=400,
        dropout=0.33,
        num_mixed_layers=None,
        heads_loss_weight=weight,
    )
    if not taught:
        model.base_model.tree.estimator = UntaughtMarginals()
    learn_upper_layers(model.base_model.encoder, FROZEN)
    return model


def features(tokenizer: PreTrainedTokenizerBase, treebank: Treebank, shown: list[bool], labelled: bool) -> Dataset:
    """Heads of the sentences that show them, if any does, and labels of all, or of none."""
    columns: dict[str, Any] = {}
    if any(shown):
        columns["heads"] = [tree.heads if shows else None for tree, shows in zip(treebank.trees, shown, strict=True)]
    if labelled:
        columns["labels"] = treebank.labels
    return Dataset.from_dict(encode_words(tokenizer, [tree.words for tree in treebank.trees], **columns))


def train(encoder: str, train_file: str, test_file: str, /, **run: Any) -> dict[str, Any]:
    """The figures of one run, after its last step."""
    torch.set_num_threads(1)
    set_seed(run["seed"])
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tags, parts = read(Path(train_file), Path(test_file))
    model = new_model(encoder, tokenizer, len(tags), run["weight"], run.get("taught", True))
    drawn = examples(run["kind"], parts["train"], run["trees"], run["steps"], run["seed"])
    learned, shown = parts["train"].select([place for place, _ in drawn]), [shows for _, shows in drawn]
    rate = run["learning_rate"]
    trainer = quiet_trainer(
        model,
        torch.optim.AdamW(encoder_parameter_groups(model, rate, rate / 10, weight_decay=0.01)),
        {
            "max_steps": run["steps"],
            "per_device_train_batch_size": BATCH,
            "train_sampling_strategy": "sequential",  # the batches are as they were drawn
            "lr_scheduler_type": "linear",
            "warmup_steps": 0.1,
            "seed": run["seed"],
        },
        train_dataset=features(tokenizer, learned, shown, labelled=run["kind"] != "trees"),
        data_collator=DataCollatorForLatentTrees(tokenizer),
        processing_class=tokenizer,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, **{name: figures(trainer, tokenizer, parts[name]) for name in ("validation", "test")}}


def figures(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, treebank: Treebank) -> dict[str, float]:
    """The shares of words with the right head and the right part of speech, in per cent."""
    data = features(tokenizer, treebank, [True] * len(treebank.trees), labelled=True)
    data = data.select(sorted(range(len(data)), key=lambda row: len(treebank.trees[row].words)))
    right, words = {"heads": 0, "tags": 0}, 0
    trainer.model.eval()
    with torch.no_grad():
        for start in range(0, len(data), EVALUATED_TOGETHER):
            rows = data.select(range(start, min(start + EVALUATED_TOGETHER, len(data))))
            batch = trainer.data_collator(list(rows))
            heads, labels = batch.pop("heads"), batch.pop("labels")
            unknown = torch.full_like(heads, IGNORED)  # with which the model tells its own
            output = trainer.model(**batch, heads=unknown)
            right["heads"] += int((output.heads == heads)[heads != IGNORED].sum())
            right["tags"] += int((output.logits.argmax(-1) == labels)[labels != IGNORED].sum())
            words += int((heads != IGNORED).sum())
    return {name: 100 * count / words for name, count in right.items()}
