"""The latent trees of texts, by a model."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from hf_latent.inference.checks import check_count
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.relations import names_of
from hf_latent.models.words.texts import (
    Encoded,
    Text,
    as_text,
    by_length,
    encode,
    evaluation_mode,
    is_split,
    on_device,
    without_adapters,
)
from hf_latent.trees.tree import Tree

# Arcs of soft trees with less weight than this are not kept.
SMALLEST_WEIGHT = 0.05


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
    if not isinstance(model.config, LatentTreeConfig):
        raise ValueError(f"`model` must have a latent tree, or be a parser, and a {type(model).__name__} has no trees to show.")
    if not has_trees(model):
        raise ValueError("This model was trained with `estimator=None`: it has no latent tree to show.")
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a list of strings, got one string: pass [{texts!r}].")
    check_count("batch_size", batch_size)
    texts = [as_text(text) for text in texts]
    if len({is_split(text) for text in texts}) > 1:
        raise TypeError("`texts` must be strings throughout, or lists of words throughout, got some of both.")
    order = by_length(texts)
    trees: dict[int, Tree] = {}
    with evaluation_mode(model):
        for start in tqdm(range(0, len(texts), batch_size), desc="Parsing", disable=not progress):
            places = order[start : start + batch_size]
            encoded = encode(model, tokenizer, [texts[place] for place in places], truncation)
            trees |= zip(places, parse_batch(model, encoded)[0], strict=True)
    return [trees[place] for place in range(len(texts))]


def has_trees(model: PreTrainedModel) -> bool:
    """Whether there are trees in it, latent or a parser's."""
    return isinstance(model.config, LatentTreeConfig) and model.config.estimator is not None


def parse_tokens(model: PreTrainedModel, inputs: Mapping[str, Tensor], word_ids: Tensor) -> ModelOutput:
    """What the model returns for these tokens in evaluation mode: among others, the `heads` of the best trees."""
    with evaluation_mode(model), torch.no_grad():
        return model.parser(**on_device(model, {**inputs, "word_ids": word_ids}), return_dict=True)


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
