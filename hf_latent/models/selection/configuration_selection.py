"""Configuration of the classifier by a few words."""

import math

from huggingface_hub.dataclasses import strict

from hf_latent.models.words.configuration_choice import ChoiceConfig
from hf_latent.structures import Subset, SubsetChain


@strict
class LatentSelectionConfig(ChoiceConfig):
    r"""
    Configuration of a [`LatentSelectionForSequenceClassification`]. An encoder and its words (`text_config`, `word_pooling`,
    `num_mixed_layers`, `dropout`) are configured as [`WordsConfig`] says, the choice of words (`estimator`,
    `estimator_options`, `decoder_size`) as [`ChoiceConfig`] does: with `estimator=None`, all are seen.

    at_least (`float`, defaults to 0.2): how many words are chosen at least.
    at_most (`float`, *optional*): how many at most; by default as many as at least, so that it is exactly so many.
    share (`bool`, defaults to `True`): whether both are shares of the words of a text, in place of numbers. A share is rounded
        up to a number of words.
    neighbour_score (`float`, defaults to 0.0): so much is added to the score of a choice for each two neighbours that are both
        chosen: the larger, the fewer are the stretches that the chosen words form.
    decoder_input (`str`, defaults to `"encoder"`): how the chosen words are seen: by a second pass of the encoder, in which all
        other words are blank; or by their `"embeddings"` alone.
    argmax_at_evaluation (`bool`, defaults to `True`): in evaluation mode, see whole words or nothing of them, also where
        training sees all of them in part.
    """

    model_type = "latent_selection"
    # They vary from batch to batch, which the Trainer cannot gather.
    keys_to_ignore_at_inference = ["chosen", "scores", "latent_loss", "num_words", "hidden_states", "attentions"]

    argmax_at_evaluation: bool = True
    at_least: float | int = 0.2
    at_most: float | int | None = None
    share: bool = True
    neighbour_score: float | int = 0.0
    decoder_input: str = "encoder"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.decoder_input not in ("encoder", "embeddings"):
            raise ValueError(f"`decoder_input` must be 'encoder' or 'embeddings', got {self.decoder_input!r}.")
        if not math.isfinite(self.neighbour_score):
            raise ValueError(f"`neighbour_score` must be a finite number, got {self.neighbour_score!r}.")
        self.new_structure()

    def new_structure(self) -> Subset:
        """Which sets of words may be chosen; where neighbours count, a `SubsetChain`.

        Raises:
            ValueError: numbers that are none, or shares that are not between 0 and 1.
        """
        most = self.at_least if self.at_most is None else self.at_most
        kind = SubsetChain if self.neighbour_score else Subset
        return kind(self.at_least, most, share=self.share)


__all__ = ["LatentSelectionConfig"]
