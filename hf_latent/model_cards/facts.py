"""What a card says that the model does not know of itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from transformers import TrainingArguments

from hf_latent.reliance import Reliance


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside what the model knows of itself.

    Attributes:
        name: the model's name, for its title and, as `owner/name` on the Hub, for the code that shows how to use it.
        example: a sentence, whose tree is drawn; or, for a model of pairs, two.
        dataset: the name on the Hub of the data that it was trained on.
        metrics: figures by their names, such as `{"accuracy": 0.83}`.
        split: the split of the dataset that they were measured on.
        training: the arguments of the Trainer, or a dictionary.
        base_model: the name on the Hub of the encoder that it started from; by default the one that it was loaded from.
        language, license: as the Hub names them.
        tags: beside our own.
        supervised: whether gold trees were learned from (`heads`).
        reliance: what `hf_latent.diagnostics.reliance` returned, on the same split.
    """

    name: str
    example: str | Sequence[str]
    dataset: str | None = None
    metrics: Mapping[str, Any] | None = None
    split: str = "test"
    training: TrainingArguments | Mapping[str, Any] | None = None
    base_model: str | None = None
    language: str | None = None
    license: str | None = None
    tags: Sequence[str] = ()
    supervised: bool = False
    reliance: Reliance | None = None

    @property
    def texts(self) -> list[str]:
        return [self.example] if isinstance(self.example, str) else list(self.example)

    @property
    def figures(self) -> dict[str, float]:
        return numbers(self.metrics or {})


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those that are finite numbers; of dictionaries (a metric for each label), those in them, as `outer_inner`."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{inner}": number for inner, number in numbers(value).items()}
        elif isinstance(value, Real) and math.isfinite(value):
            found[name] = float(value)
    return found
