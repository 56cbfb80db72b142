"""`pipeline("dependency-parsing")`: texts or words in, heads and relations out."""

from transformers import AutoModelForTokenClassification
from transformers.pipelines import PIPELINE_REGISTRY

from hf_latent.models.latent_tree.modeling_dependency_parsing import LatentTreeForDependencyParsing
from hf_latent.models.latent_tree.pipeline_latent_tree_parsing import LatentTreeParsingPipeline, ParsedText
from hf_latent.trees import Tree


class ParsedSentence(ParsedText):
    """What the pipeline says of a sentence, which JSON takes as it is."""

    weights = "probabilities"


class DependencyParsingPipeline(LatentTreeParsingPipeline):
    """Sentences parsed by a [`LatentTreeForDependencyParsing`].

    A sentence is a string, or a list of its words; several are taken as `LatentTreeParsingPipeline` takes them. (The words of a
    string are those of the tokenizer; who was trained on a treebank's words, which are others, passes lists of such words.)

    For each sentence, a dictionary, as `json.dumps` takes it:

    - `words`;
    - `heads`: for each word 0 (ROOT) or j for the j-th word, always a tree that the model allows;
    - `relations`: of each word to its head;
    - `probabilities`: of the arcs to these heads, the marginals of the model's distribution over trees;
    - `other_arcs`: [word from 0, head as above, probability] of other arcs, where it is 0.05 or more;
    - `offsets`: [begin, end] of each word in the string; empty where words were given.

    Made when they are asked for: `["tree"]`, a [`Tree`] that can be printed, drawn and shown; `["conllu"]`, a string; and
    `["displacy"]`, what spaCy's drawer takes.

    >>> parser = pipeline("dependency-parsing", model="outputs/parser")
    >>> parser(["It", "parses", "."])["tree"].to_png("tree.png")

    Args (of the pipeline, or of a call): as `LatentTreeParsingPipeline` has them.
    """

    name = "dependency-parsing"
    has_relations = True

    def check_model(self) -> None:
        if not isinstance(self.model, LatentTreeForDependencyParsing):
            raise ValueError(
                f"The pipeline 'dependency-parsing' needs a LatentTreeForDependencyParsing, got a {type(self.model).__name__}. "
                "Train one (examples/dependency_parsing.py), or see latent trees by the pipeline 'latent-tree-parsing'."
            )

    def described(self, tree: Tree) -> ParsedSentence:
        found = super().described(tree)
        probabilities = found.pop("weights")
        return ParsedSentence(found, probabilities=probabilities)


PIPELINE_REGISTRY.register_pipeline(
    "dependency-parsing", DependencyParsingPipeline, pt_model=AutoModelForTokenClassification, type="text"
)

__all__ = ["DependencyParsingPipeline"]
