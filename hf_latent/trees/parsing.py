"""The latent trees of texts, by a model."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    trees = []
    encoded = tokenizer(
        batch,
        padding=True,
        truncation=True,
        return_tensors="pt",
        return_offsets_mapping=True,
        is_split_into_words=are_split,
    )
    offsets = encoded.pop("offset_mapping")
    encoded = encoded.to(model.device)
    encoded["input_ids"] = encoded["input_ids"].long()  # where no text has a token, they come as floats
    if are_split:
        found = [[-1 if word is None else word for word in encoded.word_ids(row)] for row in range(len(batch))]
        for text, own in zip(batch, found, strict=True):
            _check_words(text, own)
        word_ids = torch.tensor(found, dtype=torch.long).view(len(batch), -1)
    else:
        word_ids = model.base_model.find_words(encoded["input_ids"], encoded["attention_mask"]).cpu()
    output = model.base_model(**encoded, word_ids=word_ids.to(model.device), return_dict=True)
    heads = heads_from_arcs(model.base_model.tree.structure.argmax(output.arc_scores, output.num_words)).cpu()
    arcs = output.arcs.float().cpu()
    for row, text in enumerate(batch):
        count = int(output.num_words[row])
        words = _words_of_text(text, offsets[row], word_ids[row], count) if isinstance(text, str) else text[:count]
        trees.append(_tree(words, heads[row, :count], arcs[row, :count]))
    return trees


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


def _words_of_text(text: str, offsets: Tensor, word_ids: Tensor, count: int) -> list[str]:
    """The stretch of `text` that each word's tokens cover, from the span and the word of each token."""
    words = []
    for word in range(count):
        spans = offsets[word_ids == word]
        words.append(text[int(spans[:, 0].min()) : int(spans[:, 1].max())].strip())
    return words


def _tree(words: Sequence[str], heads: Tensor, arcs: Tensor) -> Tree:
    weights = arcs.gather(1, heads[:, None])[:, 0]
    others = arcs.scatter(1, heads[:, None], 0.0)
    return Tree(
        tuple(words),
        tuple(heads.tolist()),
        tuple(weights.tolist()),
        tuple((word, head, float(others[word, head])) for word, head in (others >= SMALLEST_WEIGHT).nonzero().tolist()),
    )
