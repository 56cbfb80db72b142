"""A language made up for the demo: its trees are known, and its labels cannot be had without them.

A sentence is a chain of noun phrases: "sunny beach under frosty pine beside harvest". An adjective hangs from the next noun, a
preposition from the noun before it, a noun from the preposition before it, the first noun from ROOT. Every word belongs to
one of four seasons (ROOT to spring), and an arc is *in harmony* if the head's season is the dependent's or the one after it.
The label says whether more arcs are in harmony than not.

Which words a sentence has says nothing about its label: each sentence of the corpus has an anagram in it, of the same words
in another order, with the other label.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

WORDS = {
    "adjective": [["fresh", "tender"], ["sunny", "ripe"], ["golden", "misty"], ["frosty", "silent"]],
    "noun": [["blossom", "meadow"], ["beach", "cherry"], ["harvest", "pumpkin"], ["snow", "pine"]],
    "preposition": [["under"], ["beside"], ["after"], ["without"]],
}
CLASSES = list(WORDS)
SEASON = {word: season for words in WORDS.values() for season, group in enumerate(words) for word in group}
WORD_CLASS = {word: name for name, words in WORDS.items() for group in words for word in group}


@dataclass(frozen=True)
class Sentence:
    """Words, the head of each (0 for ROOT), and whether harmony prevails (1) or not (0)."""

    words: tuple[str, ...]
    heads: tuple[int, ...]
    label: int


def harmony(words: tuple[str, ...], heads: tuple[int, ...]) -> int:
    """How many more arcs are in harmony than not."""
    seasons = [0, *(SEASON[word] for word in words)]
    return sum(1 if (seasons[head] - SEASON[word]) % 4 < 2 else -1 for word, head in zip(words, heads, strict=True))


def generate(count: int, seed: int, longest: int = 9) -> list[Sentence]:
    """`count` sentences of 2 to `longest` words; half of them have each label, and each has its anagram among them."""
    generator = random.Random(seed)
    waiting: dict[tuple[str, ...], tuple[list[Sentence], list[Sentence]]] = defaultdict(lambda: ([], []))
    corpus: list[Sentence] = []
    for sentence in _sentences(generator, longest):
        same, other = waiting[tuple(sorted(sentence.words))][:: 1 if sentence.label == 0 else -1]
        if other:
            corpus += [sentence, other.pop()]
        else:
            same.append(sentence)
        if len(corpus) >= count:
            break
    generator.shuffle(corpus)
    return corpus[:count]


def _sentences(generator: random.Random, longest: int) -> Iterator[Sentence]:
    while True:
        classes, heads, preposition = [], [], 0
        while True:
            adjectives = generator.randrange(3)
            noun = len(classes) + adjectives + 1
            classes += ["adjective"] * adjectives + ["noun"]
            heads += [noun] * adjectives + [preposition]
            if generator.random() < 0.4:
                break
            classes.append("preposition")
            heads.append(noun)
            preposition = noun + 1
        if 2 <= len(classes) <= longest:
            words = tuple(generator.choice(generator.choice(WORDS[name])) for name in classes)
            balance = harmony(words, tuple(heads))
            if balance:
                yield Sentence(words, tuple(heads), int(balance > 0))
