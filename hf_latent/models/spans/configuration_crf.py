"""Configuration of the tagger with a conditional random field."""

from huggingface_hub.dataclasses import strict

from hf_latent.models.spans.configuration_tagger import TaggerConfig


@strict
class CRFConfig(TaggerConfig):
    r"""
    Configuration of a [`CRFForTokenClassification`]: that of an encoder, its words and the `span_scheme`, as [`TaggerConfig`]
    says.
    """

    model_type = "crf_tagging"
    # They vary in two dimensions from batch to batch, which the Trainer cannot gather.
    keys_to_ignore_at_inference = ["emissions", "num_words", "hidden_states", "attentions"]


__all__ = ["CRFConfig"]
