"""`pipeline("latent-tree-parsing")`: texts in, trees out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, Pipeline, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from hf_latent.trees.parsing import encode, parse_tokens, tree_of, without_adapters


class LatentTreeParsingPipeline(Pipeline):
    """The latent trees of texts.

    For each text, which is a string, or a list of words (then in a list of such lists): a dictionary of its `words`, the
    `heads` (for each word 0 for ROOT or j for the j-th word), the `weights` (how much of what the decoder sees of the word's
    head this one is; 1 where a tree was chosen), and the `tree`, a [`Tree`] that can be printed, drawn and shown.

    >>> parser = pipeline("latent-tree-parsing", model="outputs/sst2")
    >>> print(parser("A fascinating and fun film .")["tree"].to_text())
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model: PreTrainedModel = without_adapters(self.model)
        if getattr(self.model.config, "model_type", None) != "latent_tree":
            raise ValueError(
                f"The pipeline 'latent-tree-parsing' needs a latent-tree model, got a {type(self.model).__name__}. Put a tree "
                "on it with `LatentTreeForSequenceClassification.from_encoder` and train that."
            )
        if self.model.config.estimator is None:
            raise ValueError("This model was trained with `estimator=None`: it has no latent tree to show.")

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"The pipeline 'latent-tree-parsing' has no option {next(iter(kwargs))!r}.")
        return {}, {}, {}

    def preprocess(self, input_: str | Sequence[str], **_: Any) -> dict[str, Any]:
        is_split = not isinstance(input_, str)
        if is_split and not (isinstance(input_, Sequence) and all(isinstance(word, str) for word in input_)):
            raise TypeError(f"Texts must be strings, or lists of words, got {input_!r}.")
        encoded, word_ids, words = encode(self.model, self.tokenizer, [input_], is_split)
        # Counted from 1, since 0 is what a batch is padded with.
        return {**encoded, "word_numbers": word_ids + 1, "words": words[0]}

    def _forward(self, input_tensors: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        inputs = dict(input_tensors)
        words, word_numbers = inputs.pop("words"), inputs.pop("word_numbers")
        with torch.no_grad():
            heads, output = parse_tokens(self.model, inputs, word_numbers - 1)
        return {"words": words, "heads": heads, "arcs": output.arcs.float()}

    def postprocess(self, model_outputs: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        heads, arcs = _only(model_outputs["heads"]), _only(model_outputs["arcs"])
        tree = tree_of(model_outputs["words"], heads, arcs)
        return {"words": list(tree.words), "heads": list(tree.heads), "weights": list(tree.weights), "tree": tree}


def _only(batch: Tensor) -> Tensor:
    if len(batch) != 1:
        raise RuntimeError(f"Expected the result of one text, got {len(batch)}.")
    return batch[0]


# The tree is in the model that all of ours are made on, whatever stands above it.
PIPELINE_REGISTRY.register_pipeline("latent-tree-parsing", LatentTreeParsingPipeline, pt_model=AutoModel, type="text")

__all__ = ["LatentTreeParsingPipeline"]
