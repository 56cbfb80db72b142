"""Dependency parsing: heads and relations, learned from trees."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.layers import BiaffineRelationScorer
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_latent_tree import LatentTreeModel, LatentTreeModelOutput
from hf_latent.models.latent_tree.modeling_pretrained import LatentTreePreTrainedModel
from hf_latent.models.latent_tree.relations import heads_of_relations, label, learn_relations, of_words
from hf_latent.models.latent_tree.trainer_labels import learns_from
from hf_latent.models.losses import IGNORED, reaching
from hf_latent.models.registry import Task, register_model

# What parsers of treebanks have (Dozat and Manning 2017, about), where nothing else is asked for.
DEFAULTS = {
    "projective": False,
    "single_root": True,
    "arc_size": 400,
    "relation_size": 100,
    "dropout": 0.33,
    "num_mixed_layers": None,
}


@dataclass
class LatentTreeParserOutput(ModelOutput):
    """
    loss: of heads (times `heads_loss_weight`) and of relations, if gold ones were given; each is a mean over the words that
        have one.
    heads: `(batch, n)`, in evaluation mode: of the best tree. 0 is ROOT, j the j-th word; -100 beyond the last word.
    relations: `(batch, n)`, in evaluation mode: of each word to that head, as `config.id2label` numbers them; -100 beyond.
    num_words: `(batch,)`.
    arcs: `(batch, n, n + 1)`, in evaluation mode: the probability of each head of each word (column 0 is ROOT), the marginals
        of the distribution over trees.
    arc_scores: `(batch, n, n + 1)`.
    relation_scores: `(batch, n, num_labels)`, of the relations to `heads`; in training to the gold ones.
    heads_loss, relations_loss: `(batch,)`, the means over the words of each sentence, if gold ones were given.
    last_hidden_state: `(batch, n, size)`, the words.
    hidden_states, attentions: the encoder's, per token, if asked for.
    """

    loss: Tensor | None = None
    heads: Tensor | None = None
    relations: Tensor | None = None
    num_words: Tensor | None = None
    arcs: Tensor | None = None
    arc_scores: Tensor | None = None
    relation_scores: Tensor | None = None
    heads_loss: Tensor | None = None
    relations_loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@register_model(
    AutoModelForTokenClassification,
    Task(
        "token-classification",
        "Dependency Parsing",
        "parses sentences: it finds the head of each word, and the relation between them",
        kind="parser",
    ),
    is_default=False,
)
class LatentTreeForDependencyParsing(LatentTreePreTrainedModel):
    """A parser: arcs and relations of words, scored by biaffine functions (Dozat and Manning 2017).

    It decodes by the best tree, always one that `projective` and `single_root` allow, and learns by the likelihood of gold
    trees, of which any part may be unknown: the trees that have the known heads count together. Relations are the model's
    labels; each is chosen for the arc that was chosen.

    >>> model = LatentTreeForDependencyParsing.from_encoder("google-bert/bert-base-cased", relations=["root", "nsubj", "obj"])
    """

    def __init__(self, config: LatentTreeConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.estimator is None:
            raise ValueError("`estimator=None` makes a model without a tree, which cannot parse. Leave it out.")
        if config.relations:
            raise ValueError("The relations of a parser are its labels: name them in `id2label`, in place of `relations`.")
        self.latent_tree = LatentTreeModel(config, encoder)
        self.relation_scorer = BiaffineRelationScorer(
            config.hidden_size, config.num_labels, config.relation_size, config.dropout
        )
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: str | os.PathLike | PreTrainedModel,
        tokenizer: str | os.PathLike | PreTrainedTokenizerBase | None = None,
        relations: Sequence[str] | None = None,
        **options,
    ) -> "LatentTreePreTrainedModel":
        """As all our models; with what parsers of treebanks have, where nothing else is asked for: all trees with one root,
        larger scorers, dropout of a third, and a mean of all layers of the encoder.

        Args:
            relations: their names; a word's relation is the number of its name, from 0.
        """
        if relations is not None:
            if len(set(relations)) < len(relations) or not relations:
                raise ValueError(f"`relations` must be names, each once, got {list(relations)!r:.200}.")
            names = dict(enumerate(relations))
            options = {**options, "id2label": names, "label2id": {name: number for number, name in names.items()}}
        return super().from_encoder(encoder, tokenizer, **{**DEFAULTS, **options})

    @property
    def parser(self) -> nn.Module:
        return self

    @learns_from("relations")
    @learns_from("heads")
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        word_ids: Tensor | None = None,
        heads: Tensor | None = None,
        relations: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> LatentTreeParserOutput | tuple[Tensor, ...]:
        """
        Args:
            heads: `(batch, n)`, gold heads: 0 is ROOT, j the j-th word, -100 where it is not known. Columns beyond the last
                word may be there, with -100.
            relations: `(batch, n)`, gold relations to these heads, from 0; -100 where one is not known. Where a head is not
                known, nothing is learned from its relation.
            The rest is that of [`LatentTreeModel`].
        """
        if kwargs.get("labels") is not None:
            raise ValueError("A parser learns from `heads` and `relations`, and got `labels`, which mean nothing to it.")
        if relations is not None:
            heads = heads_of_relations(heads)
        output: LatentTreeModelOutput = self.latent_tree(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            word_ids=word_ids,
            heads=heads,
            choose=False,
            return_dict=True,
            **kwargs,
        )
        words, num_words, scores = output.last_hidden_state, output.num_words, output.arc_scores
        assert words is not None and num_words is not None and scores is not None  # noqa: PT018
        relation_scores = loss = relations_loss = arcs = found = None
        if heads is not None:
            loss, relations_loss, relation_scores = self._losses(output, words, heads, relations)
        if output.heads is not None:
            assert self.latent_tree.tree is not None
            arcs = self.latent_tree.tree.structure.marginals(scores, num_words)
            relation_scores, found = self.label(words, output.heads)
        return LatentTreeParserOutput(
            loss=loss,
            heads=output.heads,
            relations=found,
            num_words=num_words,
            arcs=arcs,
            arc_scores=scores,
            relation_scores=relation_scores,
            heads_loss=output.heads_loss,
            relations_loss=relations_loss,
            last_hidden_state=words,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _losses(
        self, output: LatentTreeModelOutput, words: Tensor, heads: Tensor, relations: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The loss, that of each sentence's relations if gold ones are given, and the scores of relations to the gold heads."""
        assert output.heads_loss is not None
        heads = of_words(heads, words)
        loss = self.config.heads_loss_weight * self._mean(output.heads_loss, heads)
        if relations is None:
            scores = self.relation_scorer(words, heads)
            return reaching(loss, words, scores), None, scores
        scores, relations_loss, known = learn_relations(self.relation_scorer, words, heads, relations, self.config)
        return reaching(loss + self._mean(relations_loss, known), words), relations_loss, scores

    def label(self, words: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """The scores `(batch, n, num_labels)` of relations to these heads, `(batch, n)`, and the best relations, `(batch, n)`.

        Words whose head is negative have the relation -100. The relation of words below ROOT (`root_relation`) is for them
        alone.
        """
        return label(self.relation_scorer, words, heads, self.config)

    @staticmethod
    def _mean(losses: Tensor, labels: Tensor) -> Tensor:
        """Over all words that have a label, of the means over those of each sentence."""
        counts = (labels != IGNORED).sum(1)
        return (losses * counts).sum() / counts.sum().clamp(min=1)


__all__ = ["LatentTreeForDependencyParsing", "LatentTreeParserOutput"]
