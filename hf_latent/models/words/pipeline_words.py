"""What the pipelines of models that see words have in common: texts in, one dictionary for each."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from types import GeneratorType
from typing import Any

from torch.utils.data import Dataset
from transformers import Pipeline, PreTrainedModel

from hf_latent.models.words.texts import as_text, by_length, encode, without_adapters


class WordsPipeline(Pipeline):
    """Texts in, in any form, and out in their order; see `LatentTreeParsingPipeline`."""

    # What it is called, for the errors.
    name: str
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model: PreTrainedModel = without_adapters(self.model)
        self.check_model()

    def check_model(self) -> None:
        """Raises ValueError for a model that the pipeline is not for."""
        raise NotImplementedError

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """See the class.

        Raises:
            TypeError: what is neither a text nor several; an unknown option.
            ValueError: a text that is too long; a word (of a list) without a token.
        """
        if isinstance(inputs, str):
            return super().__call__(inputs, *args, **kwargs)
        if isinstance(inputs, Sized) and not len(inputs):
            return []
        if isinstance(inputs, Dataset | GeneratorType):
            return super().__call__(inputs, *args, **kwargs)
        if isinstance(inputs, Iterator):
            return super().__call__((text for text in inputs), *args, **kwargs)
        texts = [as_text(text) for text in inputs] if _holds_texts(inputs) else [as_text(inputs)]
        order = by_length(texts)
        found = super().__call__([texts[place] for place in order], *args, **kwargs)
        return [one for _, one in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]

    def _sanitize_parameters(
        self, truncation: bool | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(
                f"The pipeline {self.name!r} has no option {next(iter(kwargs))!r}. It takes truncation, batch_size and "
                "num_workers."
            )
        return {} if truncation is None else {"truncation": truncation}, {}, {}

    def preprocess(self, input_: Any, truncation: bool = False, **_: Any) -> dict[str, Any]:
        inputs, word_ids, words, offsets = encode(self.model, self.tokenizer, [as_text(input_)], truncation)
        # Counted from 1, since 0 is what a batch is padded with.
        return {"words": words[0], "offsets": offsets[0], **inputs, "word_numbers": word_ids + 1}


def _holds_texts(inputs: object) -> bool:
    return isinstance(inputs, Iterable) and not isinstance(inputs, Mapping | bytes)
