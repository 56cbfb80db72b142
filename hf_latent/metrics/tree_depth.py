"""How deep trees are."""

import datasets
import evaluate

from hf_latent.trees import Tree, tree_statistics

NO_WORD = -100


class TreeDepth(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The mean over trees of the number of arcs between ROOT and the deepest word, and the share of flat "
            "trees, in which all words have the same head.",
            citation="",
            inputs_description="predictions: for each sentence the heads of its words, 0 for ROOT and j for the j-th word. "
            "There may be columns beyond the last word if they have -100.",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )

    def _compute(self, predictions: list[list[int]]) -> dict[str, float]:
        trees = []
        for row, heads in enumerate(predictions):
            if heads is None or None in heads:
                raise ValueError(f"`predictions` must be heads, got {heads} for sentence {row}.")
            count = next((place for place in range(len(heads), 0, -1) if heads[place - 1] != NO_WORD), 0)
            try:
                trees.append(Tree(("",) * count, tuple(heads[:count])))
            except ValueError as error:
                raise ValueError(f"`predictions` are no tree in sentence {row}: {error}") from None
        if not any(tree.words for tree in trees):
            raise ValueError("`predictions` have no words, so that there is no depth to measure.")
        found = tree_statistics(trees)
        return {"depth": found["depth"], "flat": found["flat"]}
