"""What the configurations of taggers have in common that label the words of a sentence as a whole."""

from huggingface_hub.dataclasses import strict

from hf_latent.layers import SpanScheme
from hf_latent.layers.span_scheme import KINDS
from hf_latent.models.words.configuration_words import WordsConfig


@strict
class TaggerConfig(WordsConfig):
    r"""
    Configuration of taggers. An encoder and its words (`text_config`, `word_pooling`, `num_mixed_layers`, `dropout`) are
    configured as [`WordsConfig`] says.

    span_scheme (`str`, *optional*, defaults to `"auto"`): what the names of the labels (`id2label`) say of sequences: `"BIO"`,
        `"IOB1"` or `"BIOES"` (see `hf_latent.layers.SpanScheme`), which then are the only ones; with `None`, all sequences are
        possible. By default it is read off the names where all of them are those of spans, and None otherwise.
    """

    span_scheme: str | None = "auto"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.span_scheme not in (None, "auto", *KINDS):
            raise ValueError(f"`span_scheme` must be 'auto', one of {', '.join(KINDS)}, or None, got {self.span_scheme!r}.")

    def new_span_scheme(self) -> SpanScheme | None:
        """What the labels say of sequences, or None.

        Raises:
            ValueError: labels that are not those of the scheme that was asked for.
        """
        if self.span_scheme is None:
            return None
        if self.span_scheme != "auto":
            return SpanScheme(self.id2label, self.span_scheme)  # type: ignore[arg-type]
        try:
            return SpanScheme(self.id2label)
        except ValueError:
            return None


__all__ = ["TaggerConfig"]
