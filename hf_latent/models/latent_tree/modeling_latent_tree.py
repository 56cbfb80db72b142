"""A latent dependency tree on top of any encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.layers import HeadAveraging, KindEmbedding, LatentTree, LatentTreeLayer, RelationAveraging
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_pretrained import LatentTreePreTrainedModel
from hf_latent.models.latent_tree.relations import heads_of_relations, label, learn_relations
from hf_latent.models.latent_tree.trainer_labels import learns_from
from hf_latent.models.losses import IGNORED, mean_heads_loss, reaching, tree_nll
from hf_latent.models.registry import Task, register_model
from hf_latent.models.words.given_words import check_heads
from hf_latent.models.words.modeling_words import WordsModel
from hf_latent.structures import DependencyTree, Independent, Structure


@dataclass
class LatentTreeModelOutput(ModelOutput):
    """
    last_hidden_state: `(batch, n, size)`, each *word* beside its head, `[h_i; ĥ_i]` (without a tree, the word alone).
    num_words: `(batch,)`.
    arcs: `(batch, n, n + 1)`; row i is a distribution over the heads of word i, column 0 is ROOT, column j word j - 1.
    arc_scores: `(batch, n, n + 1)`, before the choice.
    latent_loss: `(batch,)`, whose gradient trains the arc scorer; its value is 0.
    heads: `(batch, n)`, in evaluation mode: of the best tree. 0 is ROOT, j the j-th word; -100 beyond the last word.
    relations: `(batch, n)`, of a model that has them: of each word to that head, a number from `config.relations`.
    heads_loss: `(batch,)`, the negative log-likelihood of gold `heads`, and of gold `relations`, for each word that has one.
    loss: its mean over the rows, times `heads_loss_weight`.
    hidden_states, attentions: the encoder's, per token, if asked for.

    Where a row holds several sentences, all but the losses have a dimension for them after that of the batch.
    """

    loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    num_words: Tensor | None = None
    arcs: Tensor | None = None
    arc_scores: Tensor | None = None
    latent_loss: Tensor | None = None
    heads: Tensor | None = None
    relations: Tensor | None = None
    heads_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@register_model(AutoModel, Task("feature-extraction", "Parsing", "parses sentences"))
class LatentTreeModel(LatentTreePreTrainedModel, WordsModel):
    """Encoder, words out of sub-words, and a latent tree over them: each word comes out beside its head."""

    config: LatentTreeConfig
    # What stands above this model in others; loaded alone, it does not miss it.
    _keys_to_ignore_on_load_unexpected = [r"^(decoder|pooling|comparison|classifier|relation_scorer)\."]

    def _add_parts(self) -> None:
        config = self.config
        vocab_size, size = self.get_input_embeddings().weight.shape  # type: ignore[misc]
        self.parser_embeddings = self._kind_embedding("parser_input", vocab_size, size)
        self.decoder_embeddings = self._kind_embedding("decoder_input", vocab_size, config.decoder_size)
        if self.parser_embeddings is not None and config.decoder_input != "embeddings":
            self.get_input_embeddings().requires_grad_(False)  # which nobody sees: training on many devices waits for all else
        sizes = {"encoder": config.hidden_size, "embeddings": size}
        size = sizes[config.decoder_input] if isinstance(config.decoder_input, str) else config.decoder_size
        self.tree: LatentTreeLayer | None = None
        self.head_averaging: HeadAveraging | None = None
        self.relation_averaging: RelationAveraging | None = None
        if config.estimator is not None:
            self.tree = LatentTreeLayer(
                config.hidden_size,
                arc_scorer=config.arc_scorer,
                structure=DependencyTree(config.projective, config.single_root),
                estimator=config.new_estimator(),
                argmax_at_evaluation=config.argmax_at_evaluation,
                arc_size=config.arc_size,
                dropout=config.dropout,
                distance_penalty=config.distance_penalty,
            )
            self.head_averaging = HeadAveraging(size)
        if config.relations:
            own = config.hidden_size, len(config.relations), size, config.relation_size
            self.relation_averaging = RelationAveraging(*own, config.dropout)
        self.output_size = size if self.head_averaging is None else 2 * size

    def _kind_embedding(self, option: str, vocab_size: int, size: int) -> KindEmbedding | None:
        """Of a view of the tokens that is given by their kinds."""
        kinds = getattr(self.config, option)
        if isinstance(kinds, str):
            return None
        if len(kinds) != vocab_size:
            raise ValueError(f"`{option}` must have a kind for each of the {vocab_size} tokens, got {len(kinds)}.")
        return KindEmbedding(kinds, size)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """As in torch; also weights by the names that they had before."""
        for name in list(state_dict):
            own = name.removeprefix(prefix)
            for old, new in self.old_names.items():
                if name.startswith(prefix + old):
                    state_dict[prefix + new + own.removeprefix(old)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        task_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        predict_heads: bool = True,
        choose: bool = True,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> LatentTreeModelOutput | tuple[Tensor, ...]:
        """
        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: as the encoder takes them.
            word_ids: `(batch, tokens)`, the word of each token from 0, negative for tokens of none; by default read off
                the tokens (needs `input_ids`, and a tokenizer given when the model was made). Words that are given (those
                of a treebank) may be others: pass them ([`encode_words`]). `(batch, sentences, tokens)` for several
                sentences in a row, each with a tree of its own.
            heads: `(batch, n)` or `(batch, sentences, n)`, gold trees to learn from: of each word 0 (ROOT) or j for the j-th
                word, -100 where it is not known. Columns beyond the last word may be there, with -100. Without a `task_loss`,
                they alone are learned from.
            relations: of the shape of `heads`, gold relations to these, from 0; -100 where it, or the head, is not known.
            task_loss: from `last_hidden_state` and `num_words` to the loss of each example, `(batch,)`. Surrogate
                gradients need it in training; heads pass their own.
            predict_heads: whether to return `heads` in evaluation mode.
            choose: False to score the arcs and choose none, for whoever decodes by himself: `arcs` are None, and
                `last_hidden_state` has the words, `(batch, n, size)`, as they were scored.
        """
        encoded, tokens = self._encode(
            input_ids, inputs_embeds, attention_mask, token_type_ids=token_type_ids, position_ids=position_ids, **kwargs
        )
        if word_ids is None:
            word_ids = self.find_words(input_ids, attention_mask)
            if heads is not None:
                check_heads(word_ids, heads)
        words, decoder_words, num_words = self._words(tokens, input_ids, inputs_embeds, word_ids)
        if choose:
            # With gold heads alone, the scores learn, and the choice does not.
            estimate = heads is None or task_loss is not None
            tree, decoder_words = self._choose(words, decoder_words, num_words, task_loss, estimate)
        else:
            tree, decoder_words = self._score(words, num_words)
        if torch.is_grad_enabled():
            decoder_words = reaching(decoder_words, encoded.last_hidden_state, *([] if tree is None else [tree.scores]))
        loss = heads_loss = None
        if heads is not None or relations is not None:
            heads_loss = self._heads_loss(tree, words, num_words, heads, relations)
            loss = reaching(self.config.heads_loss_weight * mean_heads_loss(heads_loss, None, None), decoder_words)
        averaged = self.relation_averaging
        found = self._best_heads(tree, num_words) if predict_heads and not self.training else None
        return LatentTreeModelOutput(
            loss=loss,
            last_hidden_state=decoder_words,
            num_words=num_words,
            arcs=None if tree is None else tree.arcs,
            arc_scores=None if tree is None else tree.scores,
            latent_loss=None if tree is None else tree.loss,
            heads=found,
            relations=None if averaged is None or found is None else label(averaged.scorer, words, found, self.config)[1],
            heads_loss=heads_loss,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _encode(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, *args: Any, **options: Any
    ) -> tuple[BaseModelOutput, Tensor]:
        """Of the kinds of the tokens, where the parser sees these.

        Raises:
            ValueError: no `input_ids`, where the model sees kinds of tokens.
        """
        by_kind = self.parser_embeddings is not None or self.decoder_embeddings is not None
        if by_kind and input_ids is None:
            raise ValueError("The model sees kinds of tokens, and needs `input_ids` to tell them; `inputs_embeds` will not do.")
        if self.parser_embeddings is not None:
            input_ids, inputs_embeds = None, self.parser_embeddings(input_ids)
        return super()._encode(input_ids, inputs_embeds, *args, **options)

    def _words(
        self, tokens: Tensor, input_ids: Tensor | None, inputs_embeds: Tensor | None, word_ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the words, the vectors that are scored, those that the decoder sees, and the number."""
        if self.config.decoder_input == "encoder":
            words, num_words = self._pool(tokens, word_ids)
            return words, words, num_words
        if self.decoder_embeddings is not None:
            embeddings = self.decoder_embeddings(input_ids)
        else:
            embeddings = self._embed(input_ids, inputs_embeds)
        both, num_words = self._pool(torch.cat([tokens, embeddings], dim=-1), word_ids)
        words, own_words = both.split([tokens.shape[-1], embeddings.shape[-1]], dim=-1)
        return words.contiguous().to(tokens.dtype), own_words.contiguous().to(embeddings.dtype), num_words

    def _choose(
        self,
        words: Tensor,
        decoder_words: Tensor,
        num_words: Tensor,
        task_loss: Callable[[Tensor, Tensor], Tensor] | None,
        estimate: bool,
    ) -> tuple[LatentTree | None, Tensor]:
        """The tree, and each word beside its head; for a model without a tree, None and the words alone."""
        if self.tree is None or self.head_averaging is None:
            return None, decoder_words
        averaging, of_relations = self.head_averaging, self.relation_averaging
        # The words may be of another precision than what stands above the encoder.
        words, own_words = words.to(averaging.root.dtype), decoder_words.to(averaging.root.dtype)

        def beside_heads(arcs: Tensor) -> Tensor:
            seen: Tensor = averaging(own_words, arcs, None if of_relations is None else of_relations(words, arcs))
            return seen

        def loss_of_arcs(arcs: Tensor) -> Tensor:
            assert task_loss is not None
            return task_loss(beside_heads(arcs), num_words)

        tree = self.tree(words, num_words, None if task_loss is None else loss_of_arcs, estimate)
        return tree, beside_heads(tree.arcs)

    def _score(self, words: Tensor, num_words: Tensor) -> tuple[LatentTree | None, Tensor]:
        """The tree of which arcs are scored and none is chosen, and the words as they were scored."""
        if self.tree is None or self.head_averaging is None:
            return None, words
        words = words.to(self.head_averaging.root.dtype)
        unused = [self.head_averaging.root] if torch.is_grad_enabled() else []
        return self.tree(words, num_words, choose=False), reaching(words, *unused)

    def _heads_loss(
        self, tree: LatentTree | None, words: Tensor, num_words: Tensor, heads: Tensor | None, relations: Tensor | None
    ) -> Tensor:
        """`(batch,)`, for each word with a gold head, and for each with a gold relation to it."""
        if self.tree is None or tree is None:
            raise ValueError("`heads` were given to a model without a tree (`estimator=None`), which cannot learn them.")
        heads = heads_of_relations(heads)
        losses = tree_nll(self.tree.structure, tree.scores, num_words, heads, self.config.impossible_heads)
        losses = losses / (heads != IGNORED).flatten(1).sum(1).clamp(min=1).to(losses.device)
        if relations is None:
            return losses
        if self.relation_averaging is None:
            raise ValueError("`relations` were given to a model that has none. Name them when it is made: `relations=[...]`.")
        return losses + learn_relations(self.relation_averaging.scorer, words, heads, relations, self.config).loss

    def _best_heads(self, tree: LatentTree | None, num_words: Tensor) -> Tensor | None:
        """Those of the highest-scoring tree, `(batch, n)` or `(batch, sentences, n)`; -100 beyond the sentence."""
        if self.tree is None or tree is None:
            return None
        scores = tree.scores
        whole: Structure = self.tree.structure if scores.dim() == 3 else Independent(self.tree.structure)
        is_word = torch.arange(scores.shape[-2], device=scores.device) < num_words[..., None]
        return whole.argmax(scores.detach(), num_words).argmax(-1).masked_fill(~is_word, IGNORED)


__all__ = ["LatentTreeModel", "LatentTreeModelOutput"]
