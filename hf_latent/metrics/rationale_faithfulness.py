"""Whether a model's answer rests on the words that it gives as its reasons."""

import math

import datasets
import evaluate


class RationaleFaithfulness(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        probabilities = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="Comprehensiveness and sufficiency (DeYoung et al. 2020): how much less likely the class that is found "
            "in the whole text becomes without the words of the rationale (much, if they were needed), and with these words "
            "alone (little, if they are enough); means over the texts.",
            citation="",
            inputs_description="predictions, without, alone: of each text, the probability of each class, from the whole text, "
            "from the text without its rationale, and from the rationale alone.",
            features=datasets.Features({"predictions": probabilities, "without": probabilities, "alone": probabilities}),
        )

    def _compute(
        self, predictions: list[list[float]], without: list[list[float]], alone: list[list[float]]
    ) -> dict[str, float]:
        if not predictions:
            raise ValueError("`predictions` are of no texts, so that there is nothing to measure.")
        for name, rows in (("predictions", predictions), ("without", without), ("alone", alone)):
            for row, (own, whole) in enumerate(zip(rows, predictions, strict=True)):
                if not own or len(own) != len(whole):
                    raise ValueError(f"`{name}` must have a probability for each class, got {own} for text {row}.")
                # NaN is in no order.
                if not all(value is not None and 0 <= value <= 1 for value in own) or not math.isclose(
                    sum(own), 1, abs_tol=1e-2
                ):
                    raise ValueError(
                        f"`{name}` must be probabilities that sum to 1, got {own} for text {row}. From logits, take a softmax."
                    )
        found = [max(range(len(own)), key=own.__getitem__) for own in predictions]

        def lost(rows: list[list[float]]) -> float:
            return sum(whole[k] - own[k] for whole, own, k in zip(predictions, rows, found, strict=True)) / len(found)

        return {"comprehensiveness": lost(without), "sufficiency": lost(alone)}
