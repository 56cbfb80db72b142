"""Configuration of the latent-tree models."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hf_latent.estimators import DEFAULT_ESTIMATOR, Estimator, get_estimator
from hf_latent.layers.word_pooling import POOLINGS

# Of saved models; one more where older versions of this package could not read them, or would read them as something else.
# 4 mixed no layers, had no penalty on distance and no relations, 3 saw no kinds of tokens, 2 had other names of weights.
FORMAT_VERSION = 5
# The estimators of which η was 1 in format 1 where nothing was said of it.
STEP_SIZE_1 = ("ste_identity", "spigot", "spigot_ce", "spigot_eg")


@strict
class LatentTreeConfig(PreTrainedConfig):
    r"""
    Configuration of a [`LatentTreeModel`] and the models on top of it.

    text_config (`PreTrainedConfig` or `dict`): the configuration of the encoder, of any model that `AutoModel` knows.
    estimator (`str`, *optional*, defaults to `"marginals"`): how the gradient gets through the choice of a tree, a name of
        `hf_latent.list_estimators()`. With `None` there is no tree: the baseline.
    estimator_options (`dict`, *optional*): its options, such as `{"step_size": 0.1, "num_steps": 1}`.
    argmax_at_evaluation (`bool`, defaults to `False`): in evaluation mode, use the best tree also where training relaxes it.
    projective (`bool`, defaults to `True`): only trees without crossing arcs.
    single_root (`bool`, defaults to `False`): only trees with one word below ROOT.
    arc_scorer (`str`, defaults to `"biaffine"`): or `"mlp"`, `"relative"`, `"counter"`; see `hf_latent.layers`.
    arc_size (`int`, defaults to 100): hidden size of the arc scorer.
    distance_penalty (`float`, defaults to 0.0): so much is taken from the score of an arc between words, times the logarithm of
        their distance. Near heads come first; with a single root, trees are deeper.
    word_pooling (`str`, *optional*): the vector of a word is that of its `"first"` sub-word, its `"last"`, or their `"mean"`.
        By default the first; the last where the encoder does not look ahead, found by trying it when the model is made.
    num_mixed_layers (`int`, *optional*, defaults to 1): of how many of the encoder's last layers a token's vector is a learned
        mean (`hf_latent.layers.ScalarMix`). With 1, it is that of the last layer as it is; with `None`, all layers are mixed.
    parser_input (`str` or `list[int]`, defaults to `"encoder"`): what the encoder, and so the parser, sees: the tokens
        themselves; or, with a list of the kind of each token of the vocabulary (its part of speech, say), learned embeddings
        of the kinds in their place. A parser that sees the words can do the decoder's work, and tell it the answer by the
        shape of a tree.
    decoder_input (`str` or `list[int]`, defaults to `"encoder"`): the vectors that the decoder sees of a word and its head: the
        encoder's output, or its input `"embeddings"`; or, with a list of the kind of each token, learned embeddings of the
        kinds. But for the first, all that the decoder knows of a word's context is its head.
    decoder_size (`int`, defaults to 100): hidden size of the decoder.
    dropout (`float`, defaults to 0.0): in the arc scorer and the decoder.
    heads_loss_weight (`float`, defaults to 1.0): of gold trees (`heads`) in the loss, whose part of it is a mean over words.
    impossible_heads (`str`, defaults to `"error"`): what becomes of gold trees that the model does not allow: an error, or
        `"skip"`, to learn nothing from them, with warnings that count such sentences.
    relations (`list[str]`, *optional*): the names of relations of words to their heads, which the model finds and the decoder
        sees beside the heads. (Those of a parser are its labels, `id2label`.) By default there are none.
    relation_size (`int`, defaults to 100): hidden size of the scorer of relations, of models that have one.
    root_relation (`str`, *optional*, defaults to `"root"`): the relation that words below ROOT have, and no others, if the
        model knows it. With `None`, relations are chosen freely.
    encoder_size (`int`, *optional*): the size of the encoder's vectors, where it is not the `hidden_size` of its configuration;
        set by the model that is made.
    format_version (`int`): of saved models; set by the package that saves them.
    """

    model_type = "latent_tree"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert")}
    # They vary in two dimensions from batch to batch, which the Trainer cannot gather.
    keys_to_ignore_at_inference = [
        "arcs",
        "arc_scores",
        "latent_loss",
        "heads_loss",
        "relation_scores",
        "relations_loss",
        "num_words",
        "last_hidden_state",
        "hidden_states",
        "attentions",
    ]

    text_config: PreTrainedConfig | dict | None = None
    estimator: str | None = DEFAULT_ESTIMATOR
    estimator_options: dict | None = None
    argmax_at_evaluation: bool = False
    projective: bool = True
    single_root: bool = False
    arc_scorer: str = "biaffine"
    arc_size: int = 100
    distance_penalty: float | int = 0.0
    word_pooling: str | None = None
    num_mixed_layers: int | None = 1
    parser_input: str | list[int] = "encoder"
    decoder_input: str | list[int] = "encoder"
    decoder_size: int = 100
    dropout: float | int = 0.0
    heads_loss_weight: float | int = 1.0
    impossible_heads: str = "error"
    relations: list[str] | None = None
    relation_size: int = 100
    root_relation: str | None = "root"
    encoder_size: int | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs):
        if self.format_version > FORMAT_VERSION:
            raise ValueError(
                f"This model was saved by a newer hf_latent (format {self.format_version}; this one reads up to "
                f"{FORMAT_VERSION}). Upgrade: pip install --upgrade hf_latent."
            )
        if self.format_version == 1 and self.estimator in STEP_SIZE_1:
            self.estimator_options = {"step_size": 1.0, **(self.estimator_options or {})}
        self.format_version = FORMAT_VERSION
        super().__post_init__(**kwargs)
        if self.output_attentions and self._attn_implementation is None:  # type: ignore[has-type]
            self._attn_implementation = "eager"  # the others have no attentions to return
        if isinstance(self.parser_input, str) and self.parser_input != "encoder":
            raise ValueError(f"`parser_input` must be 'encoder' or a list of the kinds of tokens, got {self.parser_input!r}.")
        if isinstance(self.decoder_input, str) and self.decoder_input not in ("encoder", "embeddings"):
            raise ValueError(
                f"`decoder_input` must be 'encoder', 'embeddings' or a list of the kinds of tokens, got {self.decoder_input!r}."
            )
        if not 0 <= self.heads_loss_weight < float("inf"):
            raise ValueError(f"`heads_loss_weight` must be a finite number of at least 0, got {self.heads_loss_weight!r}.")
        if self.impossible_heads not in ("error", "skip"):
            raise ValueError(f"`impossible_heads` must be 'error' or 'skip', got {self.impossible_heads!r}.")
        if self.num_mixed_layers is not None and self.num_mixed_layers < 1:
            raise ValueError(f"`num_mixed_layers` must be at least 1, or None for all, got {self.num_mixed_layers}.")
        if self.relations is not None and (not self.relations or len(set(self.relations)) < len(self.relations)):
            raise ValueError(f"`relations` must be names, each once, or None, got {self.relations!r:.200}.")
        if self.relations and self.estimator is None:
            raise ValueError("`relations` are of words to their heads, and a model with `estimator=None` has no heads.")
        if self.word_pooling not in (None, *POOLINGS):
            raise ValueError(f"`word_pooling` must be one of {', '.join(POOLINGS)}, got {self.word_pooling!r}.")

    def new_estimator(self) -> Estimator:
        """The estimator with its options.

        Raises:
            TypeError: options that the estimator does not have.
            ValueError: an unknown estimator; a bad value of an option.
        """
        assert self.estimator is not None
        try:
            return get_estimator(self.estimator, **(self.estimator_options or {}))
        except TypeError as error:
            raise TypeError(f"{error} Pass `estimator_options` (or None) that go with the `estimator`.") from None

    @property
    def hidden_size(self) -> int:
        """The size of a word vector of the encoder."""
        return self.encoder_size or self.text_config.hidden_size  # type: ignore[union-attr, return-value]

    # What callers read and write here belongs to the encoder.
    @property
    def vocab_size(self) -> int:
        """The number of tokens that the encoder knows."""
        return self.get_text_config().vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.get_text_config().vocab_size = value

    @property
    def max_position_embeddings(self) -> int:
        """The number of tokens of the longest text that the encoder can read."""
        return self.get_text_config().max_position_embeddings


__all__ = ["LatentTreeConfig"]
