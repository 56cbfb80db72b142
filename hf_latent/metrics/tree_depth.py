"""How deep trees are."""

import datasets
import evaluate

from hf_latent.trees import Tree, tree_statistics


class TreeDepth(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The mean over trees of the number of arcs between ROOT and the deepest word, and the share of flat "
            "trees, in which all words have the same head.",
            citation="",
            inputs_description="predictions: for each sentence the heads of its words, 0 for ROOT and j for the j-th word.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions: list[list[int]]) -> dict[str, float]:
        found = tree_statistics([Tree(("",) * len(heads), tuple(heads)) for heads in predictions])
        return {"depth": found["depth"], "flat": found["flat"]}
