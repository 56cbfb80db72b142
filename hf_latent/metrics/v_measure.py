"""How well clusters agree with classes."""

import datasets
import evaluate
from sklearn.metrics import homogeneity_completeness_v_measure


class VMeasure(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="V-measure (Rosenberg and Hirschberg 2007): the harmonic mean of homogeneity (each cluster has members "
            "of one class) and completeness (each class is in one cluster). Names of clusters do not matter.",
            citation="",
            inputs_description="predictions, references: the cluster and the class of each example, as integers.",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        found = homogeneity_completeness_v_measure(references, predictions)
        return dict(zip(("homogeneity", "completeness", "v_measure"), map(float, found), strict=True))
