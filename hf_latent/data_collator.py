"""Batches of features that a latent-tree model takes, with the words, trees and labels that come with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from hf_latent.models.losses import IGNORED
from hf_latent.models.words.word_boundaries import IN_NO_WORD

PADDED_BY_TOKENIZER = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask")
OF_WORDS = ("heads", "relations")
FILLED_WITH = {"word_ids": IN_NO_WORD, "heads": IGNORED, "relations": IGNORED, "labels": IGNORED}
ALIASES = {"label": "labels", "label_ids": "labels"}


@dataclass
class DataCollatorForLatentTrees:
    """Makes batches of what [`encode_words`] makes, or a tokenizer, as lists, arrays or tensors.

    Tokens are padded as the tokenizer pads, on its side; on the same side `word_ids` with -1, be they `(tokens,)` or, of pairs,
    `(2, tokens)`, and labels of tokens with -100; `heads` and `relations`, `(n,)` or one such list for each sentence of a
    pair, on the right with -100. Other `labels` (or `label`) are a number, or a list of floats. Any other feature must be
    numbers of one shape.

    Args:
        tokenizer: it pads.
        pad_to_multiple_of: of what the number of tokens is to be a multiple.

    Raises:
        ValueError: a feature that only some of the examples have, that is not made of numbers, or that does not fit the tokens;
            labels by two names; heads, words or labels of tokens that are no whole numbers (NaN, where a table has gaps).
    """

    tokenizer: PreTrainedTokenizerBase
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        columns = _columns(features)
        if "input_ids" not in columns:
            raise ValueError(f"Examples must have 'input_ids', got {', '.join(columns)}. Make them with `encode_words`.")
        tokens = {name: [_of_tokens(name, row) for row in columns.pop(name)] for name in PADDED_BY_TOKENIZER if name in columns}
        padded = pad_without_fast_tokenizer_warning(
            self.tokenizer, tokens, padding=True, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"
        )
        batch = {name: values.long() for name, values in padded.items()}  # floats where no text has a token
        lengths, longest = [len(row) for row in tokens["input_ids"]], batch["input_ids"].shape[1]
        for name, rows in columns.items():
            if name in OF_WORDS:
                batch[name] = _padded_words(name, rows)
                continue
            values = [_tensor(name, row) for row in rows]
            of_tokens = name == "labels" and any(row.dim() == 1 and not row.is_floating_point() for row in values)
            if name == "word_ids" or of_tokens:
                batch[name] = self._padded(name, values, lengths, longest)
            else:
                batch[name] = _stacked(name, values)
        return batch

    def _padded(self, name: str, rows: list[Tensor], lengths: list[int], longest: int) -> Tensor:
        """`(batch, ..., longest)` from rows that have a value for each token."""
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            if row.shape[-1:] != (length,):
                raise ValueError(
                    f"{name!r} of example {place} has shape {tuple(row.shape)}, but the example has {length} tokens: it must "
                    "have a value for each. `encode_words` makes them. (Several labels of one example are floats.)"
                )
        on_the_left = self.tokenizer.padding_side == "left"
        missing = [longest - length for length in lengths]
        sides = [(own, 0) if on_the_left else (0, own) for own in missing]
        padded = [pad(_whole(name, row), side, value=FILLED_WITH[name]) for row, side in zip(rows, sides, strict=True)]
        return _stacked(name, padded)


def _columns(features: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    """The values of each feature. (None is no value: `Dataset.from_list` fills in what a row lacks.)"""
    if isinstance(features, Mapping) or not len(features):
        raise ValueError(f"`features` must be a list of at least one example, got {features!r:.200}.")
    examples: list[dict[str, Any]] = []
    for place, given in enumerate(features):
        named = [(ALIASES.get(name, name), value) for name, value in given.items() if value is not None]
        examples.append(dict(named))
        if len(examples[-1]) < len(named):
            raise ValueError(
                f"Example {place} of the batch has labels by two names ({', '.join(ALIASES)} and labels are the same): remove "
                "the column that is not to be learned."
            )
    for place, example in enumerate(examples):
        other = sorted(example.keys() ^ examples[0].keys())
        if other:
            has, lacks = (place, 0) if other[0] in example else (0, place)
            raise ValueError(
                f"Example {has} of the batch has {other[0]!r}, and example {lacks} has not. Where heads or labels are not "
                f"known, fill in {IGNORED} (`encode_words` does so for None)."
            )
    return {name: [example[name] for example in examples] for name in examples[0]}


def _tensor(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value if isinstance(value, Tensor | int | float) else np.asarray(value))
        return tensor if tensor.numel() else tensor.long()  # no values are no floats
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name!r} must be numbers, got {value!r:.200}. Leave the feature out, as the Trainer does with what the "
            "model does not take."
        ) from None


def _of_tokens(name: str, value: Any) -> list:
    tensor = _tensor(name, value)
    if tensor.dim() != 1:
        raise ValueError(f"{name!r} of an example must be a list with a number for each token, got {value!r:.200}.")
    return tensor.tolist()


def _whole(name: str, value: Any) -> Tensor:
    tensor = _tensor(name, value)
    if not torch.equal(tensor.long().to(tensor.dtype), tensor):
        raise ValueError(f"{name!r} must be whole numbers, also where there is none ({FILLED_WITH[name]}), got {value!r:.200}.")
    return tensor.long()


def _stacked(name: str, rows: list[Tensor]) -> Tensor:
    shapes = sorted({tuple(row.shape) for row in rows})
    if len(shapes) > 1:
        raise ValueError(f"{name!r} must have the same shape in all examples of a batch, got {shapes[0]} and {shapes[1]}.")
    return torch.stack(rows)


def _padded_words(name: str, rows: list) -> Tensor:
    """`(batch, n)`, or `(batch, sentences, n)`."""
    for row in rows:
        if not hasattr(row, "__len__") or getattr(row, "ndim", 1) == 0:
            raise ValueError(f"{name!r} of an example must be a list with a number for each word, got {row!r:.200}.")
    sentences = [len(row) if len(row) and np.ndim(row[0]) else None for row in rows]
    if len(set(sentences)) > 1:
        raise ValueError(f"{name!r} must be of one sentence in all examples of a batch, or of two in all.")
    if sentences[0] is None:
        return pad_sequence([_whole(name, row) for row in rows], batch_first=True, padding_value=IGNORED)
    flat = _padded_words(name, [own for row in rows for own in row])
    return flat.unflatten(0, (len(rows), sentences[0]))
