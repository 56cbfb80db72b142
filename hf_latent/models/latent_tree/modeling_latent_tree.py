"""A latent dependency tree on top of any encoder."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    initialization,
)
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple
from typing_extensions import Unpack

from hf_latent.estimators import Estimator, get_estimator
from hf_latent.inference.checks import is_eager
from hf_latent.layers import BiaffineArcScorer, HeadAveraging, LatentTreeLayer, MLPArcScorer, pool_words
from hf_latent.models.latent_tree import encoders
from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.given_words import check_heads
from hf_latent.models.latent_tree.look_ahead import looks_ahead
from hf_latent.models.latent_tree.word_boundaries import OWN_WORD, UNSET, token_kinds, word_ids_from_tokens
from hf_latent.models.losses import IGNORED, mean_heads_loss, reaching, tree_nll
from hf_latent.structures import DependencyTree, Independent, Structure

logger = logging.get_logger(__name__)


@dataclass
class LatentTreeModelOutput(ModelOutput):
    """
    last_hidden_state: `(batch, n, size)`, each *word* beside its head, `[h_i; ĥ_i]` (without a tree, the word alone).
    num_words: `(batch,)`.
    arcs: `(batch, n, n + 1)`; row i is a distribution over the heads of word i, column 0 is ROOT, column j word j - 1.
    arc_scores: `(batch, n, n + 1)`, before the choice.
    latent_loss: `(batch,)`, whose gradient trains the arc scorer; its value is 0.
    heads: `(batch, n)`, in evaluation mode: of the best tree. 0 is ROOT, j the j-th word; -100 beyond the last word.
    heads_loss: `(batch,)`, the negative log-likelihood of the gold `heads` (if they were given) for each word that has one.
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
    heads_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LatentTreePreTrainedModel(PreTrainedModel):
    """Weight initialization, loading, and the start from a pretrained encoder."""

    config: LatentTreeConfig
    base_model_prefix = "latent_tree"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LatentTreeLayer"]
    # Outside the encoder, models loaded in half precision keep their own, and nothing is quantized. (The two lists may have no
    # entry in common.)
    _keep_in_fp32_modules_strict = [r"^(?!(latent_tree\.)?encoder\.).*"]
    _keep_in_fp32_modules = [r"^(?!(latent_tree\.)?encoder\.).+"]
    # The encoder itself checks again.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | BiaffineArcScorer | MLPArcScorer | HeadAveraging):
            module.reset_parameters()
        elif isinstance(module, LatentTreeLayer) and module.estimator_state is not None:
            initialization.copy_(module.estimator_state, module.estimator.initial_state())
        elif isinstance(module, LatentTreeModel):
            nn.init.constant_(module.token_kinds, UNSET)

    def is_custom_code(self) -> bool:  # type: ignore[override]
        """Custom code is not asked to fill what is not saved; our own can be, and what matters is the encoder's."""
        return self.base_model.encoder.is_custom_code()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in transformers; a model computes to the last bit what it computed when it was saved."""
        loaded = super().from_pretrained(*args, **kwargs)
        _align(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    def save_pretrained(self, *args, **kwargs) -> None:
        """As in transformers.

        Raises:
            ValueError: an encoder of code that transformers does not know, with which the model could not be loaded.
        """
        encoder_class = self.base_model.encoder_class
        if not encoders.comes_back(encoder_class, self.config.text_config):
            raise ValueError(
                f"A model with a {encoder_class.__name__} in it cannot be saved: its code is not part of transformers, and the "
                "model would be loaded with another encoder or not at all. Put that code into a package of your own that "
                "calls `AutoConfig.register` and `AutoModel.register`, and import it wherever the model is saved or loaded."
            )
        super().save_pretrained(*args, **kwargs)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """As in transformers; new tokens are taken for words of their own.

        (Where some are special tokens, which are no words, call `model.base_model.set_word_boundaries(tokenizer)` after it.)
        """
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        base = self.base_model
        added = embeddings.weight.shape[0] - len(base.token_kinds)
        fill = UNSET if bool((base.token_kinds[:1] == UNSET).all()) else OWN_WORD
        base.token_kinds = nn.functional.pad(base.token_kinds, (0, added), value=fill)
        return embeddings

    def get_position_embeddings(self) -> nn.Embedding:
        """As in transformers, where the encoder has it."""
        return self.base_model.encoder.get_position_embeddings()

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """As in transformers, where the encoder has it."""
        self.base_model.encoder.resize_position_embeddings(new_num_position_embeddings)

    @classmethod
    def from_encoder(
        cls,
        encoder: str | os.PathLike | PreTrainedModel,
        tokenizer: str | os.PathLike | PreTrainedTokenizerBase | None = None,
        **options,
    ) -> "LatentTreePreTrainedModel":
        """This model with a pretrained encoder in it; all else is new and wants training.

        Args:
            encoder: a name on the Hub, a folder, or a model (of which its base model is taken over, not copied).
            tokenizer: the encoder's, which tells where words begin; by default loaded from where the encoder is. Without
                one, each forward call needs `word_ids`.
            **options: fields of [`LatentTreeConfig`] (`estimator`, `num_labels`, …).

        Raises:
            TypeError: an option that [`LatentTreeConfig`] does not have.
            ValueError: a tokenizer that does not fit the encoder, or does not mark words.
        """
        known = {field.name for field in fields(LatentTreeConfig)} | {"num_labels", "output_attentions"}
        known -= {"text_config", "encoder_size", "format_version", "transformers_version", "architectures", "dtype"}
        for option in options:
            if option not in known:
                raise TypeError(
                    f"Unknown option {option!r}. LatentTreeConfig takes: {', '.join(sorted(known))}. (As for how the "
                    "encoder is loaded: load it with `AutoModel.from_pretrained`, and pass it.)"
                )
        if not isinstance(encoder, str | os.PathLike | PreTrainedModel):
            raise TypeError(
                f"`encoder` must be a name, a folder or a model of transformers, got a {type(encoder).__name__}. Put the tree "
                "on first, and adapters on the whole."
            )
        if not isinstance(encoder, PreTrainedModel):
            tokenizer = encoder if tokenizer is None else tokenizer
            encoder = AutoModel.from_pretrained(encoder)
        encoder = encoders.as_loaded(encoder)
        if isinstance(tokenizer, str | os.PathLike):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        if not options.get("output_attentions"):  # for which it takes another
            options["attn_implementation"] = {"text_config": encoder.config._attn_implementation}
        options["experts_implementation"] = {"text_config": encoder.config._experts_implementation}
        model = cls(LatentTreeConfig(text_config=encoder.config, **options), encoder)
        if getattr(encoder, "hf_quantizer", None) is not None:
            model.hf_quantizer = encoder.hf_quantizer  # which saves what it has quantized
        _align(model)
        if tokenizer is not None:
            model.base_model.set_word_boundaries(tokenizer)
        return model


class _LabelName(str):
    """The name of a parameter that the Trainer takes for labels: it looks for "label" in the names."""

    def __contains__(self, part: str) -> bool:  # type: ignore[override]
        return part == "label" or super().__contains__(part)


def _learns_from(name: str) -> Callable[[Callable], Callable]:
    """Decorator of a `forward` that has labels of this name: the Trainer evaluates with them, and hands them to metrics.

    (`TrainingArguments(label_names=[name])` says the same, in each script anew.)
    """

    def decorate(forward: Callable) -> Callable:
        parameters = signature(forward).parameters.values()
        named = [one.replace(name=_LabelName(name)) if one.name == name else one for one in parameters]
        forward.__signature__ = signature(forward).replace(parameters=named)  # type: ignore[attr-defined]
        return forward

    return decorate


class LatentTreeModel(LatentTreePreTrainedModel):
    """Encoder, words out of sub-words, and a latent tree over them: each word comes out beside its head."""

    token_kinds: Tensor
    # What stands above this model in others; loaded alone, it does not miss it.
    _keys_to_ignore_on_load_unexpected = [r"^(decoder|pooling|comparison|classifier)\."]

    def __init__(self, config: LatentTreeConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.encoder = encoders.new_encoder(config.text_config) if encoder is None else encoder
        self.encoder_class = type(self.encoder)
        found = encoders.output_size(self.encoder)
        if found is not None and found != getattr(config.text_config, "hidden_size", None):
            config.encoder_size = found
        if config.word_pooling is None:
            config.word_pooling = "first" if looks_ahead(self.encoder) else "last"
        vocab_size, size = self.encoder.get_input_embeddings().weight.shape
        self.register_buffer("token_kinds", torch.full((vocab_size,), UNSET, dtype=torch.int32))
        size = config.hidden_size if config.decoder_input == "encoder" else size
        self.tree: LatentTreeLayer | None = None
        self.heads: HeadAveraging | None = None
        if config.estimator is not None:
            self.tree = LatentTreeLayer(
                config.hidden_size,
                arc_scorer=config.arc_scorer,
                structure=DependencyTree(config.projective, config.single_root),
                estimator=_new_estimator(config),
                argmax_at_evaluation=config.argmax_at_evaluation,
                arc_size=config.arc_size,
                dropout=config.dropout,
            )
            self.heads = HeadAveraging(size)
        self.output_size = size if self.heads is None else 2 * size
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def set_word_boundaries(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Learn from the tokenizer which tokens open a word; saved with the model.

        Tokens that are added to the tokenizer afterwards are taken for words of their own; call it again if they are special.
        What a word is: see `hf_latent.models.latent_tree.word_boundaries`.
        """
        size = len(self.get_input_embeddings().weight)  # type: ignore[arg-type]
        self.token_kinds = token_kinds(tokenizer, size).to(self.token_kinds.device)

    @_learns_from("heads")
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
        task_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        predict_heads: bool = True,
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
            task_loss: from `last_hidden_state` and `num_words` to the loss of each example, `(batch,)`. Surrogate
                gradients need it in training; heads pass their own.
            predict_heads: whether to return `heads` in evaluation mode.
        """
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) is None and getattr(self.config, name):
                kwargs[name] = True  # type: ignore[literal-required]
        encoded = encoders.encode(
            self.encoder,
            attention_mask,
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        if encoded.attentions == () and is_eager():
            logger.warning_once(
                f"The encoder computes attention by {self.encoder.config._attn_implementation!r}, which has no `attentions` to "
                'return. Load it with `attn_implementation="eager"`.'
            )
        if word_ids is None:
            word_ids = self.find_words(input_ids, attention_mask)
            if heads is not None:
                check_heads(word_ids, heads)
        words, num_words = self._pool(encoded.last_hidden_state, word_ids)
        decoder_words = words
        if self.config.decoder_input == "embeddings":
            embeddings = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
            if isinstance(embeddings, tuple):  # quantized ones, with their scale
                embeddings = embeddings[0]
            decoder_words, _ = self._pool(embeddings, word_ids)
        tree = None
        if self.tree is not None and self.heads is not None:
            # They may be of another precision than the encoder.
            words, decoder_words = words.to(self.heads.root.dtype), decoder_words.to(self.heads.root.dtype)
            averaging, own_words = self.heads, decoder_words

            def loss_of_arcs(arcs: Tensor) -> Tensor:
                assert task_loss is not None
                return task_loss(averaging(own_words, arcs), num_words)

            # With gold heads alone, the scores are learned from, and not the choice.
            estimate = heads is None or task_loss is not None
            tree = self.tree(words, num_words, None if task_loss is None else loss_of_arcs, estimate)
            decoder_words = averaging(own_words, tree.arcs)
        if torch.is_grad_enabled():
            decoder_words = reaching(decoder_words, encoded.last_hidden_state, *([] if tree is None else [tree.scores]))
        loss = heads_loss = predicted = None
        if heads is not None:
            if self.tree is None or tree is None:
                raise ValueError("`heads` were given to a model without a tree (`estimator=None`), which cannot learn them.")
            losses = tree_nll(self.tree.structure, tree.scores, num_words, heads, self.config.impossible_heads)
            heads_loss = losses / (heads != IGNORED).flatten(1).sum(1).clamp(min=1).to(losses.device)
            loss = reaching(self.config.heads_loss_weight * mean_heads_loss(heads_loss, None, None), decoder_words)
        if self.tree is not None and tree is not None and predict_heads and not self.training:
            predicted = _best_heads(self.tree.structure, tree.scores, num_words)
        return LatentTreeModelOutput(
            loss=loss,
            last_hidden_state=decoder_words,
            num_words=num_words,
            arcs=None if tree is None else tree.arcs,
            arc_scores=None if tree is None else tree.scores,
            latent_loss=None if tree is None else tree.loss,
            heads=predicted,
            heads_loss=heads_loss,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _pool(self, tokens: Tensor, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of the words and their number; in a replica of `nn.DataParallel`, of as many words as there are tokens.

        (It puts the outputs of all replicas together, which must then be of one size.)
        """
        assert self.config.word_pooling is not None  # since the model was made
        words, num_words = pool_words(tokens, word_ids, self.config.word_pooling)
        if getattr(self, "_is_replica", False):
            words = nn.functional.pad(words, (0, 0, 0, tokens.shape[1] - words.shape[-2]))
        return words, num_words

    @property
    def longest_text(self) -> int | None:
        """The number of tokens that the encoder has positions for; None where there is no limit."""
        return encoders.longest_text(self.encoder)

    def find_words(self, input_ids: Tensor | None, attention_mask: Tensor | None = None) -> Tensor:
        """The word of each token, `(batch, tokens)`, read off the tokens; -1 for tokens of none, -2 for white space."""
        unset = is_eager() and bool((self.token_kinds[:1] == UNSET).all())
        if input_ids is None or unset:
            why = "only `inputs_embeds` were passed" if input_ids is None else "the model was made without a tokenizer"
            raise ValueError(
                f"Cannot tell where words begin: {why}. Pass `word_ids` (the fast tokenizer's `word_ids()`, -1 for special "
                "tokens), or, with `input_ids`, call `model.base_model.set_word_boundaries(tokenizer)` once."
            )
        return word_ids_from_tokens(input_ids, attention_mask, self.token_kinds)


def _best_heads(structure: DependencyTree, scores: Tensor, num_words: Tensor) -> Tensor:
    """Of the highest-scoring tree, `(batch, n)` or `(batch, sentences, n)`; -100 beyond the sentence."""
    whole: Structure = structure if scores.dim() == 3 else Independent(structure)
    is_word = torch.arange(scores.shape[-2], device=scores.device) < num_words[..., None]
    return whole.argmax(scores.detach(), num_words).argmax(-1).masked_fill(~is_word, IGNORED)


def _new_estimator(config: LatentTreeConfig) -> Estimator:
    assert config.estimator is not None
    try:
        return get_estimator(config.estimator, **(config.estimator_options or {}))
    except TypeError as error:
        raise TypeError(f"{error} Pass `estimator_options` (or None) that go with the `estimator`.") from None


def _align(model: nn.Module) -> None:
    """Weights read from a file lie in memory where the file has them, and matrix products round differently there."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % 64:
            parameter.data = parameter.data.clone()


__all__ = ["LatentTreeModel", "LatentTreeModelOutput", "LatentTreePreTrainedModel"]
