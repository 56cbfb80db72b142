"""How many heads are right."""

import datasets
import evaluate

UNKNOWN = -100


class AttachmentScore(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        heads = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="The share of all words whose head is the gold one (unlabelled attachment score), and of those that "
            "are joined to it in one direction or the other (Klein and Manning 2004).",
            citation="",
            inputs_description="predictions, references: for each sentence the heads of its words, 0 for ROOT and j for the "
            "j-th word. Words whose reference is -100 do not count, and there may be columns beyond the last word if they "
            "have it.",
            features=datasets.Features({"predictions": heads, "references": heads}),
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        words = right = joined = 0
        for row, (ours, gold) in enumerate(zip(predictions, references, strict=True)):
            if ours is None or gold is None:
                raise ValueError(f"`predictions` and `references` must be lists of heads, got None for sentence {row}.")
            known = [word for word, head in enumerate(gold, start=1) if head != UNKNOWN]
            if known and len(ours) < known[-1]:
                raise ValueError(
                    "`predictions` and `references` must have a head for each word of a sentence, got "
                    f"{len(ours)} and {known[-1]} in sentence {row}."
                )
            for word in known:
                head, true = ours[word - 1], gold[word - 1]
                for name, value in (("predictions", head), ("references", true)):
                    if value is None or not 0 <= value <= len(ours):
                        raise ValueError(
                            f"`{name}` must be heads between 0 (ROOT) and the number of words, got {value} for word {word} of "
                            f"sentence {row}, for which there are {len(ours)} predictions."
                        )
                words += 1
                right += head == true
                joined += head == true or (true > 0 and ours[true - 1] == word)
        if not words:
            raise ValueError("`references` have no words, so that there is nothing to score.")
        return {"attachment_score": right / words, "undirected_attachment_score": joined / words}
