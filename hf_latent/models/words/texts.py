"""Texts as models take them, and models as they evaluate them."""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

Text = str | Sequence[str]


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Of a model that PEFT has wrapped, the model itself, with its adapters in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def as_text(text: object) -> Text:
    """`text` itself, if it is a string; a list, if it is words.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(text, str):
        return text
    if not isinstance(text, Sequence) or not all(isinstance(word, str) for word in text):
        raise TypeError(f"Texts must be strings, or lists of words, got {text!r}. Of a dataset, pass one column.")
    return list(text)


def by_length(texts: Sequence[Text]) -> list[int]:
    """The places of the texts, that of the longest first, so that batches of them have little padding."""
    return sorted(range(len(texts)), key=lambda place: -len(_joined(texts[place])))


def is_split(text: Text) -> bool:
    return not isinstance(text, str)


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else " ".join(text)


# Of models that are evaluated now: by how many callers, and the mode that each of their modules was in before.
_evaluated: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}
_evaluating = threading.Lock()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; after it, each module in the mode that it was in, when no other thread evaluates it."""
    with _evaluating:
        callers, modes = _evaluated.get(model) or (0, {module: module.training for module in model.modules()})
        _evaluated[model] = callers + 1, modes
        model.eval()
    try:
        yield
    finally:
        with _evaluating:
            callers, modes = _evaluated.pop(model)
            if callers > 1:
                _evaluated[model] = callers - 1, modes
            else:
                for module, training in modes.items():
                    module.training = training


class Encoded(NamedTuple):
    """Some texts as a model takes them.

    Attributes:
        inputs: of the model.
        word_ids: `(batch, tokens)`, the word of each token, -1 for those of none.
        words: of each text.
        offsets: where its words begin and end in each text; nothing where the words were given.
    """

    inputs: BatchEncoding
    word_ids: Tensor
    words: list[list[str]]
    offsets: list[list[tuple[int, int]]]


def encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Sequence[Text], truncation: bool) -> Encoded:
    """The texts, which are strings throughout or lists of words throughout, as the model takes them.

    Raises:
        ValueError: a text that is too long, unless it is to be cut; a word (of a list) without a token.
    """
    are_split = is_split(batch[0])
    longest = model.base_model.longest_text
    longest = min(sys.maxsize if longest is None else longest, tokenizer.model_max_length)
    cut = truncation and longest < sys.maxsize  # where there is no limit, tokenizers have a larger one
    encoded = tokenizer(
        batch,
        padding=True,
        truncation=cut,
        max_length=longest if cut else None,
        return_tensors="pt",
        return_offsets_mapping=True,
        is_split_into_words=are_split,
        verbose=False,  # it would warn of a long text, before it is refused
    )
    offsets = encoded.pop("offset_mapping")
    encoded["input_ids"] = encoded["input_ids"].long()  # where no text has a token, they come as floats
    _check_lengths(batch, encoded["attention_mask"].sum(1).tolist(), longest)
    if are_split:
        found = [[-1 if word is None else word for word in encoded.word_ids(row)] for row in range(len(batch))]
        words: list[list[str]] = []
        for text, own, encoding in zip(batch, found, encoded.encodings, strict=True):
            words.append(list(text[: max(own) + 1]) if encoding.overflowing else list(text))
            _check_words(words[-1], own)
        return Encoded(encoded, torch.tensor(found, dtype=torch.long).view(len(batch), -1), words, [[] for _ in batch])
    tokens = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    word_ids = model.base_model.find_words(**on_device(model, tokens)).cpu()
    rows = zip(batch, offsets.tolist(), word_ids.tolist(), strict=True)
    spans = [_spans(str(text), spans, own) for text, spans, own in rows]
    words = [[str(text)[start:end] for start, end in own] for text, own in zip(batch, spans, strict=True)]
    return Encoded(encoded, word_ids, words, spans)


def _check_lengths(batch: Sequence[Text], lengths: Sequence[int], longest: int) -> None:
    """Raises unless each text has at most as many tokens as the model takes."""
    for text, length in zip(batch, lengths, strict=True):
        if length > longest:
            begin = _joined(text)[:60]
            raise ValueError(
                f"The text that begins with {begin!r} has {length} tokens, and the model (with this tokenizer) takes at most "
                f"{longest}. Divide it into sentences, or pass `truncation=True` to have it cut."
            )


def _check_words(words: Sequence[str], word_ids: Sequence[int]) -> None:
    """Raises unless each word has a token."""
    lost = sorted(set(range(len(words))) - set(word_ids))
    if lost:
        raise ValueError(
            f"The tokenizer has no token for word {lost[0]} ({words[lost[0]]!r}) of {' '.join(words)[:60]!r}: it is empty, or "
            "nothing that the tokenizer keeps. Leave such words out."
        )


def _spans(text: str, offsets: Sequence[Sequence[int]], word_ids: Sequence[int]) -> list[tuple[int, int]]:
    """The stretch of `text` that each word's tokens cover, from the span and the word of each token, less blanks around it."""
    spans: dict[int, tuple[int, int]] = {}
    for (start, end), word in zip(offsets, word_ids, strict=True):
        before = spans.get(word, (start, end))
        spans[word] = min(start, before[0]), max(end, before[1])
    found = []
    for word in range(max(word_ids, default=-1) + 1):
        start, end = spans[word]
        start += len(text[start:end]) - len(text[start:end].lstrip())
        found.append((start, start + len(text[start:end].rstrip())))
    return found


def on_device(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the model computes, also if its weights are kept elsewhere until they are needed."""
    device = model.base_model.token_kinds.device
    return {name: value.to(device) for name, value in inputs.items()}
