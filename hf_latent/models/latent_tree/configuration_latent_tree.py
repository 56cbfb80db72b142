"""Configuration of the latent-tree models."""

from huggingface_hub.dataclasses import strict

from hf_latent.models.words.configuration_choice import ChoiceConfig

# The estimators of which η was 1 in format 1 where nothing was said of it.
STEP_SIZE_1 = ("ste_identity", "spigot", "spigot_ce", "spigot_eg")


@strict
class LatentTreeConfig(ChoiceConfig):
    r"""
    Configuration of a [`LatentTreeModel`] and the models on top of it. An encoder and its words (`text_config`,
    `word_pooling`, `num_mixed_layers`, `dropout`) are configured as [`WordsConfig`] says, the choice of a tree (`estimator`,
    `estimator_options`, `argmax_at_evaluation`, `decoder_size`) as [`ChoiceConfig`] does: with `estimator=None` there is none.

    projective (`bool`, defaults to `True`): only trees without crossing arcs.
    single_root (`bool`, defaults to `False`): only trees with one word below ROOT.
    arc_scorer (`str`, defaults to `"biaffine"`): or `"mlp"`, `"relative"`, `"counter"`; see `hf_latent.layers`.
    arc_size (`int`, defaults to 100): hidden size of the arc scorer.
    distance_penalty (`float`, defaults to 0.0): so much is taken from the score of an arc between words, times the logarithm of
        their distance. Near heads come first; with a single root, trees are deeper.
    parser_input (`str` or `list[int]`, defaults to `"encoder"`): what the encoder, and so the parser, sees: the tokens
        themselves; or, with a list of the kind of each token of the vocabulary (its part of speech, say), learned embeddings
        of the kinds in their place. A parser that sees the words can do the decoder's work, and tell it the answer by the
        shape of a tree.
    decoder_input (`str` or `list[int]`, defaults to `"encoder"`): the vectors that the decoder sees of a word and its head: the
        encoder's output, or its input `"embeddings"`; or, with a list of the kind of each token, learned embeddings of the
        kinds. But for the first, all that the decoder knows of a word's context is its head.
    heads_loss_weight (`float`, defaults to 1.0): of gold trees (`heads`) in the loss, whose part of it is a mean over words.
    impossible_heads (`str`, defaults to `"error"`): what becomes of gold trees that the model does not allow: an error, or
        `"skip"`, to learn nothing from them, with warnings that count such sentences.
    relations (`list[str]`, *optional*): the names of relations of words to their heads, which the model finds and the decoder
        sees beside the heads. (Those of a parser are its labels, `id2label`.) By default there are none.
    relation_size (`int`, defaults to 100): hidden size of the scorer of relations, of models that have one.
    root_relation (`str`, *optional*, defaults to `"root"`): the relation that words below ROOT have, and no others, if the
        model knows it. With `None`, relations are chosen freely.
    """

    model_type = "latent_tree"
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

    projective: bool = True
    single_root: bool = False
    arc_scorer: str = "biaffine"
    arc_size: int = 100
    distance_penalty: float | int = 0.0
    parser_input: str | list[int] = "encoder"
    decoder_input: str | list[int] = "encoder"
    heads_loss_weight: float | int = 1.0
    impossible_heads: str = "error"
    relations: list[str] | None = None
    relation_size: int = 100
    root_relation: str | None = "root"

    def __post_init__(self, **kwargs):
        if self.format_version == 1 and self.estimator in STEP_SIZE_1:
            self.estimator_options = {"step_size": 1.0, **(self.estimator_options or {})}
        super().__post_init__(**kwargs)
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
        if self.relations is not None and (not self.relations or len(set(self.relations)) < len(self.relations)):
            raise ValueError(f"`relations` must be names, each once, or None, got {self.relations!r:.200}.")
        if self.relations and self.estimator is None:
            raise ValueError("`relations` are of words to their heads, and a model with `estimator=None` has no heads.")


__all__ = ["LatentTreeConfig"]
