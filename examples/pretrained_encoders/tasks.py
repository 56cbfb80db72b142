"""Sentiment and inference with a pretrained encoder: the data, and what robustness is measured on."""

import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from datasets import Dataset

from hf_latent.files import read_text

LABELS = {"sst2": ["negative", "positive"], "sick": ["NEUTRAL", "ENTAILMENT", "CONTRADICTION"]}
FILES = {
    "sst2": {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
    "sick": {"train": "SICK_train.txt", "validation": "SICK_trial.txt", "test": "SICK_test_annotated.txt"},
}
POSITIVE = ["good", "great", "charming", "funny", "moving", "clever", "beautiful", "brilliant", "delightful", "touching"]
NEGATIVE = ["bad", "awful", "boring", "stupid", "tedious", "clumsy", "ugly", "dull", "annoying", "pointless"]
PLAIN = [
    "the film is {}",
    "it is a {} film",
    "i found the story {}",
    "the acting is {} from the first scene to the last",
    "what we have here is a {} comedy",
    "everyone in the theater thought that it was {}",
]
NEGATED = [
    "the film is not {}",
    "it is not a {} film",
    "i never found the story {}",
    "the acting is not {} from the first scene to the last",
    "what we do not have here is a {} comedy",
    "nobody in the theater thought that it was {}",
]


@dataclass(frozen=True)
class Texts:
    """Sentences, or pairs of them, each with the number of its label."""

    sentences: list[tuple[str, ...]]
    labels: list[int]

    def dataset(self, tokenizer) -> Dataset:
        columns = [list(column) for column in zip(*self.sentences, strict=True)]
        return Dataset.from_dict({**tokenizer(*columns, truncation=True, max_length=128), "labels": self.labels})

    def some(self, count: int, seed: int) -> "Texts":
        """A random part of them; the same for each model."""
        chosen = random.Random(seed).sample(range(len(self.labels)), min(count, len(self.labels)))
        return Texts([self.sentences[place] for place in chosen], [self.labels[place] for place in chosen])


def read(task: str, folder: Path) -> dict[str, Texts]:
    """The splits of a task, and `plain` and `negated` sentences for sentiment."""
    found = {split: _read_file(task, folder / name) for split, name in FILES[task].items()}
    if task == "sst2":
        found |= {"plain": _filled(PLAIN, negated=False), "negated": _filled(NEGATED, negated=True)}
    return found


def _read_file(task: str, file: Path) -> Texts:
    lines = [line.split("\t") for _, line in read_text(file, "file")]
    if task == "sst2":
        return Texts([(text,) for text, _ in lines], [int(label) for _, label in lines])
    names, *rows = lines
    first, second, label = (names.index(name) for name in ("sentence_A", "sentence_B", "entailment_judgment"))
    labels = [LABELS[task].index(row[label]) for row in rows]
    return Texts([(row[first], row[second]) for row in rows], labels)


def _filled(templates: list[str], negated: bool) -> Texts:
    """Each template with each adjective. A negation turns the sentiment round."""
    words = [(word, 1) for word in POSITIVE] + [(word, 0) for word in NEGATIVE]
    sentences = [((template.format(word),), label ^ negated) for template, (word, label) in product(templates, words)]
    return Texts([sentence for sentence, _ in sentences], [label for _, label in sentences])


def contrasts(texts: Texts) -> list[list[int]]:
    """Groups of pairs that have a first sentence in common and no label: to be right in all of them takes more than overlap."""
    groups: dict[str, list[int]] = {}
    for place, sentences in enumerate(texts.sentences):
        groups.setdefault(sentences[0], []).append(place)
    return [places for places in groups.values() if len({texts.labels[place] for place in places}) > 1]
