"""`pipeline("latent-tree-parsing")`: texts in, trees out."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from hf_latent.models.latent_tree.parsing import parse_tokens, relation_names, tree_of
from hf_latent.models.words.pipeline_words import WordsPipeline
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


class LatentTreeParsingPipeline(WordsPipeline):
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

    name = "latent-tree-parsing"

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


def _only(batch: Tensor) -> Tensor:
    if len(batch) != 1:
        raise RuntimeError(f"Expected the result of one text, got {len(batch)}.")
    return batch[0]


# The tree is in the model that all of ours are made on, whatever stands above it.
PIPELINE_REGISTRY.register_pipeline("latent-tree-parsing", LatentTreeParsingPipeline, pt_model=AutoModel, type="text")

__all__ = ["LatentTreeParsingPipeline"]
