"""`pipeline("latent-tree-parsing")`: texts in, trees out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import GeneratorType
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoModel, Pipeline, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from hf_latent.models.latent_tree.parsing import (
    as_text,
    by_length,
    encode,
    parse_tokens,
    relation_names,
    tree_of,
    without_adapters,
)
from hf_latent.trees import Tree, to_conllu, to_displacy


class ParsedText(dict):
    """What a pipeline says of a text, which JSON takes as it is.

    Its `["tree"]`, and that as `["conllu"]` and as `["displacy"]`, are made when they are asked for.
    """

    weights = "weights"

    def __missing__(self, key: str) -> Any:
        if key not in VIEWS:
            raise KeyError(key)
        pairs = {name: tuple(map(tuple, self[name])) for name in ("other_arcs", "offsets")}
        tree = Tree(self["words"], self["heads"], self[self.weights], **pairs, relations=self.get("relations", ()))
        return VIEWS[key](tree)


VIEWS: dict[str, Callable[[Tree], Any]] = {"tree": lambda tree: tree, "conllu": to_conllu, "displacy": to_displacy}


class LatentTreeParsingPipeline(Pipeline):
    """The latent trees of texts.

    A text is a string, or a list of words; several are a list, a tuple or a column of them, and come back in their order. A
    dataset (such as `KeyDataset`), a generator or another iterator is answered one by one, as it is read.

    For each text, a dictionary, as `json.dumps` takes it:

    - `words`;
    - `heads`: for each word 0 (ROOT) or j for the j-th word;
    - `weights`: how much of what the decoder sees of the word's head this one is; 1 where a tree was chosen;
    - `other_arcs`: where the decoder sees averages, [word from 0, head as above, weight] of the arcs beside the tree's own;
    - `offsets`: [begin, end] of each word in the string; empty where words were given;
    - `relations`: of each word to its head, by a model that has them.

    Its `["tree"]`, a [`Tree`] that can be printed, drawn and shown, is made when it is asked for; so are `["conllu"]`, a
    string, and `["displacy"]`, what spaCy's drawer takes.

    >>> parser = pipeline("latent-tree-parsing", model="outputs/sst2")
    >>> print(parser("A fascinating and fun film .")["tree"].to_text())

    The model is evaluated, and left in the mode that it was in.

    Args (of the pipeline, or of a call):
        batch_size: how many texts are parsed together, by default 1; of those that come as a list, those of like length.
        truncation: whether to cut texts that are too long for the model or the tokenizer; by default, they are an error.
    """

    # What it is called, for the errors.
    name = "latent-tree-parsing"
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model: PreTrainedModel = without_adapters(self.model)
        self.check_model()

    @property
    def has_relations(self) -> bool:
        """Whether the trees have relations."""
        return bool(self.model.config.relations)

    def check_model(self) -> None:
        """Raises ValueError for a model that the pipeline is not for."""
        if getattr(self.model.config, "model_type", None) != "latent_tree":
            raise ValueError(
                f"The pipeline 'latent-tree-parsing' needs a latent-tree model, got a {type(self.model).__name__}. Put a tree "
                "on it with `LatentTreeForSequenceClassification.from_encoder` and train that."
            )
        if self.model.config.estimator is None:
            raise ValueError("This model was trained with `estimator=None`: it has no latent tree to show.")

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

    def _forward(self, input_tensors: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        inputs = dict(input_tensors)
        words, offsets, word_numbers = (inputs.pop(name) for name in ("words", "offsets", "word_numbers"))
        output = parse_tokens(self.model, inputs, word_numbers - 1)
        found = {name: output[name] for name in ("heads", "relations") if output.get(name) is not None}
        return {"words": words, "offsets": offsets, "arcs": output.arcs.float(), **found}

    def postprocess(self, model_outputs: Mapping[str, Any], **_: Any) -> ParsedText:
        heads, arcs = _only(model_outputs["heads"]), _only(model_outputs["arcs"])
        relations = relation_names(self.model, model_outputs.get("relations"))
        own_relations = relations[0] if relations else ()
        return self.described(tree_of(model_outputs["words"], heads, arcs, model_outputs["offsets"], own_relations))

    def described(self, tree: Tree) -> ParsedText:
        """What the pipeline says of a text with this tree."""
        return ParsedText(
            words=list(tree.words),
            heads=list(tree.heads),
            weights=list(tree.weights),
            other_arcs=[list(arc) for arc in tree.other_arcs],
            offsets=[list(span) for span in tree.offsets],
            **({"relations": list(tree.relations)} if self.has_relations else {}),
        )


def _holds_texts(inputs: object) -> bool:
    return isinstance(inputs, Iterable) and not isinstance(inputs, Mapping | bytes)


def _only(batch: Tensor) -> Tensor:
    if len(batch) != 1:
        raise RuntimeError(f"Expected the result of one text, got {len(batch)}.")
    return batch[0]


# The tree is in the model that all of ours are made on, whatever stands above it.
PIPELINE_REGISTRY.register_pipeline("latent-tree-parsing", LatentTreeParsingPipeline, pt_model=AutoModel, type="text")

__all__ = ["LatentTreeParsingPipeline"]
