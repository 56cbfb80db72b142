"""Sentences with a label for each word, of files with a word and its label in a line, or in CoNLL-U."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_latent import encode_words
from hf_latent.files import read_text
from hf_latent.trees import read_conllu_sentences

PART_OF_SPEECH = 4  # the column of CoNLL-U


@dataclass(frozen=True)
class Tagged:
    """Sentences, and of each word the name of its label."""

    words: list[list[str]]
    labels: list[list[str]]

    def some(self, count: int | None, seed: int) -> "Tagged":
        """So many of them, drawn by the seed."""
        if count is None:
            return self
        places = random.Random(seed).sample(range(len(self.words)), count)
        return Tagged([self.words[place] for place in places], [self.labels[place] for place in places])

    def divided(self, count: int) -> tuple["Tagged", "Tagged"]:
        """All but the last `count` sentences, and these."""
        return Tagged(self.words[:-count], self.labels[:-count]), Tagged(self.words[-count:], self.labels[-count:])

    def dataset(self, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> Dataset:
        """As a model takes them. (A word without a token, such as a lone variation selector, is an unknown one.)"""
        numbers = {name: number for number, name in enumerate(names)}
        labels = [[numbers[label] for label in own] for own in self.labels]
        words = [[word if tokenizer.tokenize(word) else tokenizer.unk_token for word in own] for own in self.words]
        return Dataset.from_dict(encode_words(tokenizer, words, labels=labels))


def read(path: Path) -> Tagged:
    """Of a CoNLL-U file the parts of speech; of others, what stands in the second column."""
    if ".conllu" in path.name:
        sentences = list(read_conllu_sentences(path))
        return Tagged([list(one.tree().words) for one in sentences], [list(one.column(PART_OF_SPEECH)) for one in sentences])
    words: list[list[str]] = [[]]
    labels: list[list[str]] = [[]]
    for _, line in read_text(path, "file of words and labels"):
        if line.strip():
            word, label = line.split("\t")[:2]
            words[-1].append(word)
            labels[-1].append(label.strip())
        elif words[-1]:
            words.append([])
            labels.append([])
    count = len(words) - (not words[-1])
    return Tagged(words[:count], labels[:count])
