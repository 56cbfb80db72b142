"""Relations of words to their heads, of any model that has them: gold ones checked and learned, the best ones found."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hf_latent.inference.checks import describe, is_eager
from hf_latent.layers import BiaffineRelationScorer
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.losses import IGNORED


def names_of(config: LatentTreeConfig) -> list[str]:
    """The names of the relations that the model finds: those beside its labels, or else its labels."""
    return config.relations or [config.id2label[number] for number in sorted(config.id2label)]


def heads_of_relations(heads: Tensor | None) -> Tensor:
    """`heads` themselves.

    Raises:
        ValueError: there are none.
    """
    if heads is None:
        raise ValueError("`relations` were given without `heads`, which they are relations to.")
    return heads


def of_words(labels: Tensor, words: Tensor) -> Tensor:
    """`(..., n)`: as many columns as there are `words (..., n, size)`, filled with -100."""
    labels, n = labels.to(words.device).long(), words.shape[-2]
    return nn.functional.pad(labels, (0, max(n - labels.shape[-1], 0)), value=IGNORED)[..., :n]


class LearnedRelations(NamedTuple):
    """What is learned from gold relations.

    Attributes:
        scores: `(..., n, relations)`, of all relations to the gold heads.
        loss: `(batch,)`, the mean cross-entropy of each row's relations, of those that are known.
        known: `(..., n)`, the gold relations of the words whose gold heads are known, -100 for the others.
    """

    scores: Tensor
    loss: Tensor
    known: Tensor


def learn_relations(
    scorer: BiaffineRelationScorer, words: Tensor, heads: Tensor, relations: Tensor, config: LatentTreeConfig
) -> LearnedRelations:
    """The loss of the gold `relations` of `words (..., n, size)` to their gold `heads`.

    Raises:
        ValueError: relations of another shape, or a number that is no relation.
    """
    _check(relations, words, config)
    heads = of_words(heads, words)
    known = of_words(relations, words).masked_fill(heads == IGNORED, IGNORED)
    scores = scorer(words.to(scorer.root.dtype), heads)
    losses = nn.functional.cross_entropy(scores.flatten(0, -2), known.flatten(), reduction="none", ignore_index=IGNORED)
    count = (known != IGNORED).flatten(1).sum(1)
    return LearnedRelations(scores, losses.view(known.shape).flatten(1).sum(1) / count.clamp(min=1), known)


def _check(relations: Tensor, words: Tensor, config: LatentTreeConfig) -> None:
    if relations.is_floating_point() or relations.shape[:-1] != words.shape[:-2]:
        shape = tuple(words.shape[:-1])
        raise ValueError(f"`relations` must be integers of shape {shape}, one for each word, got {describe(relations)}.")
    count = len(names_of(config))
    wrong = ((relations < 0) | (relations >= count)) & (relations != IGNORED)
    if is_eager() and wrong.any():
        place = wrong.nonzero()[0].tolist()
        known = "relations" if config.relations else "id2label"
        raise ValueError(
            f"`relations` must lie between 0 and {count - 1}, or be {IGNORED} where one is not known, but "
            f"relations{place} is {int(relations[tuple(place)])}. The model knows those of `config.{known}`."
        )


def label(scorer: BiaffineRelationScorer, words: Tensor, heads: Tensor, config: LatentTreeConfig) -> tuple[Tensor, Tensor]:
    """The scores `(..., n, relations)` of relations to these heads, `(..., n)`, and the best relations, `(..., n)`.

    Words whose head is negative have the relation -100. The relation of words below ROOT (`root_relation`) is for them alone.
    """
    scores = scorer(words.to(scorer.root.dtype), heads)
    allowed, names = scores, names_of(config)
    if config.root_relation in names:
        is_root = torch.arange(scores.shape[-1], device=scores.device) == names.index(config.root_relation)
        allowed = scores.masked_fill((heads == 0)[..., None] != is_root, -torch.inf)
    return scores, allowed.argmax(-1).masked_fill(heads < 0, IGNORED)
