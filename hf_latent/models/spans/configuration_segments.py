"""Configuration of the tagger that scores spans as wholes."""

from huggingface_hub.dataclasses import strict

from hf_latent.layers import SpanScheme
from hf_latent.models.spans.configuration_tagger import TaggerConfig


@strict
class SegmentConfig(TaggerConfig):
    r"""
    Configuration of a [`SegmentForTokenClassification`]: that of an encoder, its words and the `span_scheme`, as
    [`TaggerConfig`] says, and:

    longest_span (`int`, defaults to 8): how many words a span has at most. Time and memory grow with it.
    span_size (`int`, defaults to 100): hidden size of the scorer of spans.
    """

    model_type = "segment_tagging"
    # They vary in two dimensions from batch to batch, which the Trainer cannot gather.
    keys_to_ignore_at_inference = ["segments", "num_words", "hidden_states", "attentions"]

    longest_span: int = 8
    span_size: int = 100

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.span_scheme is None:
            raise ValueError("`span_scheme` must be one, or 'auto': segments are made of labels that begin spans.")
        if self.longest_span < 1:
            raise ValueError(f"`longest_span` must be at least 1, got {self.longest_span}.")

    def new_span_scheme(self) -> SpanScheme:
        """What the labels say of sequences.

        Raises:
            ValueError: labels that are no spans, or not those of the scheme that was asked for.
        """
        return SpanScheme(self.id2label, None if self.span_scheme == "auto" else self.span_scheme)  # type: ignore[arg-type]


__all__ = ["SegmentConfig"]
