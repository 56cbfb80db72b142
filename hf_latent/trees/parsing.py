"""The latent trees of texts, by a model."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from hf_latent.structures.conversions import heads_from_arcs
from hf_latent.trees.tree import Tree

# Arcs of soft trees with less weight than this are not kept.
SMALLEST_WEIGHT = 0.05


def parse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str | Sequence[str]],
    batch_size: int = 32,
    progress: bool = False,
) -> list[Tree]:
    """The latent trees of some texts, by a latent-tree model and its (fast) tokenizer.

    Where the decoder sees averages, this is the highest-scoring tree, each arc with its weight in the average. A model for
    pairs parses each text by itself.

    Args:
        texts: strings; or lists of words, which are then the words of the trees.
        progress: whether to show a progress bar.

    Raises:
        ValueError: a model without a tree (`estimator=None`); lists of words, of which one has no token.
    """
    model = without_adapters(model)
    if model.config.estimator is None:
        raise ValueError("This model was trained with `estimator=None`: it has no latent tree to show.")
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a list of strings, got one string: pass [{texts!r}].")
    texts = [text if isinstance(text, str) else _words(text) for text in texts]
    are_split = bool(texts) and not isinstance(texts[0], str)
    if any(isinstance(text, str) == are_split for text in texts):
        raise TypeError("`texts` must be strings throughout, or lists of words throughout, got some of both.")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        batches = range(0, len(texts), batch_size)
        return [
            tree
            for start in tqdm(batches, desc="Parsing", disable=not progress)
            for tree in _parse_batch(model, tokenizer, texts[start : start + batch_size], are_split)
        ]
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def _parse_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Sequence[str | Sequence[str]], are_split: bool
) -> list[Tree]:
    encoded, word_ids, words = encode(model, tokenizer, batch, are_split)
    heads, output = parse_tokens(model, encoded, word_ids)
    arcs = output.arcs.float().cpu()
    return [tree_of(own, heads[row], arcs[row]) for row, own in enumerate(words)]


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Of a model that PEFT has wrapped, the model itself, with its adapters in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: Sequence[str | Sequence[str]], are_split: bool
) -> tuple[BatchEncoding, Tensor, list[list[str]]]:
    """What the model takes for these texts, the word of each token `(batch, tokens)`, and the words."""
    longest = model.base_model.longest_text
    encoded = tokenizer(
        batch,
        padding=True,
        truncation=True,
        max_length=None if longest is None else min(longest, tokenizer.model_max_length),
        return_tensors="pt",
        return_offsets_mapping=True,
        is_split_into_words=are_split,
    )
    offsets = encoded.pop("offset_mapping")
    encoded["input_ids"] = encoded["input_ids"].long()  # where no text has a token, they come as floats
    if are_split:
        found = [[-1 if word is None else word for word in encoded.word_ids(row)] for row in range(len(batch))]
        for text, own in zip(batch, found, strict=True):
            _check_words(text, own)
        return encoded, torch.tensor(found, dtype=torch.long).view(len(batch), -1), [list(text) for text in batch]
    tokens = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    word_ids = model.base_model.find_words(**_on_device(model, tokens)).cpu()
    words = [_words_of_text(str(text), offsets[row], word_ids[row]) for row, text in enumerate(batch)]
    return encoded, word_ids, words


def parse_tokens(model: PreTrainedModel, inputs: Mapping[str, Tensor], word_ids: Tensor) -> tuple[Tensor, ModelOutput]:
    """The heads `(batch, n)` of the best trees, on the CPU, and what the model returned beside them."""
    output = model.base_model(**_on_device(model, {**inputs, "word_ids": word_ids}), return_dict=True)
    heads = heads_from_arcs(model.base_model.tree.structure.argmax(output.arc_scores, output.num_words))
    return heads.cpu(), output


def _on_device(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the model computes, also if its weights are kept elsewhere until they are needed."""
    device = model.base_model.token_kinds.device
    return {name: value.to(device) for name, value in inputs.items()}


def _words(text: object) -> list[str]:
    if not isinstance(text, Sequence) or not all(isinstance(word, str) for word in text):
        raise TypeError(f"`texts` must be a list of strings, or of lists of words, got {text!r}.")
    return list(text)


def _check_words(words: Sequence[str], word_ids: list[int]) -> None:
    """Raises unless each word has a token."""
    lost = sorted(set(range(len(words))) - set(word_ids))
    if lost:
        raise ValueError(
            f"The tokenizer has no token for word {lost[0]} ({words[lost[0]]!r}) of {' '.join(words)[:60]!r}: it is empty, or "
            "the text is longer than `tokenizer.model_max_length`. Leave such words or texts out."
        )


def _words_of_text(text: str, offsets: Tensor, word_ids: Tensor) -> list[str]:
    """The stretch of `text` that each word's tokens cover, from the span and the word of each token."""
    words = []
    for word in range(int(word_ids.max()) + 1 if len(word_ids) else 0):
        spans = offsets[word_ids == word]
        words.append(text[int(spans[:, 0].min()) : int(spans[:, 1].max())].strip())
    return words


def tree_of(words: Sequence[str], heads: Tensor, arcs: Tensor) -> Tree:
    """The tree over `words` from `heads (n,)` and `arcs (n, n + 1)`, where n may be larger than their number."""
    heads, arcs = heads[: len(words)], arcs[: len(words)]
    weights = arcs.gather(1, heads[:, None])[:, 0]
    others = arcs.scatter(1, heads[:, None], 0.0)
    return Tree(
        tuple(words),
        tuple(heads.tolist()),
        tuple(weights.tolist()),
        tuple((word, head, float(others[word, head])) for word, head in (others >= SMALLEST_WEIGHT).nonzero().tolist()),
    )
