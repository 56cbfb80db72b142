"""The latent trees of texts, by a model."""

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from hf_latent.inference.checks import check_count
from hf_latent.models.latent_tree.relations import names_of
from hf_latent.trees.tree import Tree

# Arcs of soft trees with less weight than this are not kept.
SMALLEST_WEIGHT = 0.05

Text = str | Sequence[str]


def parse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[Text],
    batch_size: int = 32,
    progress: bool = False,
    truncation: bool = False,
) -> list[Tree]:
    """The trees of some texts, by a latent-tree model or a parser and its (fast) tokenizer.

    Where the decoder sees averages, this is the highest-scoring tree, each arc with its weight in the average; of a parser
    ([`LatentTreeForDependencyParsing`]), with its probability. Trees of a parser, and of a model with `relations`, have
    relations. A model for pairs parses each text by itself. The model is evaluated, and left in the mode that it was in.

    Args:
        texts: strings; or lists of words, which are then the words of the trees.
        batch_size: how many texts are parsed together, of which those of like length are.
        progress: whether to show a progress bar.
        truncation: whether to cut texts that are too long for the model or the tokenizer.

    Raises:
        TypeError: a single string, or strings among lists of words.
        ValueError: a model without a tree (with `estimator=None`, say); a text that is too long; a word (of a list) without a
            token.
    """
    model = without_adapters(model)
    if not hasattr(model.config, "estimator"):
        raise ValueError(f"`model` must have a latent tree, or be a parser, and a {type(model).__name__} has no trees to show.")
    if model.config.estimator is None:
        raise ValueError("This model was trained with `estimator=None`: it has no latent tree to show.")
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a list of strings, got one string: pass [{texts!r}].")
    check_count("batch_size", batch_size)
    texts = [as_text(text) for text in texts]
    if len({_is_split(text) for text in texts}) > 1:
        raise TypeError("`texts` must be strings throughout, or lists of words throughout, got some of both.")
    order = by_length(texts)
    trees: dict[int, Tree] = {}
    with evaluation_mode(model):
        for start in tqdm(range(0, len(texts), batch_size), desc="Parsing", disable=not progress):
            places = order[start : start + batch_size]
            encoded = encode(model, tokenizer, [texts[place] for place in places], truncation)
            trees |= zip(places, parse_batch(model, encoded)[0], strict=True)
    return [trees[place] for place in range(len(texts))]


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


def _is_split(text: Text) -> bool:
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
    are_split = _is_split(batch[0])
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
    word_ids = model.base_model.find_words(**_on_device(model, tokens)).cpu()
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


def parse_tokens(model: PreTrainedModel, inputs: Mapping[str, Tensor], word_ids: Tensor) -> ModelOutput:
    """What the model returns for these tokens in evaluation mode: among others, the `heads` of the best trees."""
    with evaluation_mode(model), torch.no_grad():
        return model.parser(**_on_device(model, {**inputs, "word_ids": word_ids}), return_dict=True)


def parse_batch(model: PreTrainedModel, encoded: Encoded) -> tuple[list[Tree], ModelOutput]:
    """The trees, and what the model returned."""
    output = parse_tokens(model, encoded.inputs, encoded.word_ids)
    rows = zip(encoded.words, output.heads.cpu(), output.arcs.float().cpu(), encoded.offsets, strict=True)
    relations = relation_names(model, output.get("relations")) or [[]] * len(encoded.words)
    return [tree_of(*row, own) for row, own in zip(rows, relations, strict=True)], output


def relation_names(model: PreTrainedModel, relations: Tensor | None) -> list[list[str]]:
    """Those of each sentence, from `relations (batch, n)`; none, where the model does not find relations."""
    names = names_of(model.config)
    return [] if relations is None else [[names[number] for number in row if number >= 0] for row in relations.tolist()]


def _on_device(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the model computes, also if its weights are kept elsewhere until they are needed."""
    device = model.base_model.token_kinds.device
    return {name: value.to(device) for name, value in inputs.items()}


def tree_of(
    words: Sequence[str], heads: Tensor, arcs: Tensor, offsets: Sequence[tuple[int, int]], relations: Sequence[str] = ()
) -> Tree:
    """The tree over `words` from `heads (n,)` and `arcs (n, n + 1)`, where n may be larger than their number."""
    heads, arcs = heads[: len(words)], arcs[: len(words)]
    weights = arcs.gather(1, heads[:, None])[:, 0]
    others = arcs.scatter(1, heads[:, None], 0.0)
    return Tree(
        tuple(words),
        tuple(heads.tolist()),
        tuple(weights.tolist()),
        tuple((word, head, float(others[word, head])) for word, head in (others >= SMALLEST_WEIGHT).nonzero().tolist()),
        tuple(offsets),
        tuple(relations),
    )
