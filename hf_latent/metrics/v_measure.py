"""How well clusters agree with classes."""

import datasets
import evaluate
from sklearn.metrics import homogeneity_completeness_v_measure

UNKNOWN = -100


class VMeasure(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="V-measure (Rosenberg and Hirschberg 2007): the harmonic mean of homogeneity (each cluster has members "
            "of one class) and completeness (each class is in one cluster). Names of clusters do not matter.",
            citation="",
            inputs_description="predictions, references: the cluster and the class of each example, as integers. Examples "
            "whose reference is -100 do not count.",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: list[int | None], references: list[int | None]) -> dict[str, float]:
        for name, values in (("predictions", predictions), ("references", references)):
            if None in values:
                raise ValueError(f"`{name}` must be integers, got None for example {values.index(None)}.")
        known = [pair for pair in zip(references, predictions, strict=True) if pair[0] != UNKNOWN]
        if not known:
            raise ValueError("`references` have no classes, so that there is nothing to compare with.")
        found = homogeneity_completeness_v_measure(*zip(*known, strict=True))
        return dict(zip(("homogeneity", "completeness", "v_measure"), map(float, found), strict=True))
