"""How many heads are right."""

import datasets
import evaluate


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
        for ours, gold in zip(predictions, references, strict=True):
            if len(ours) < len(gold) and any(head != -100 for head in gold[len(ours) :]):
                raise ValueError(
                    f"`predictions` and `references` must have a head for each word of a sentence, got {ours} and {gold}."
                )
            for word, (head, true) in enumerate(zip(ours, gold, strict=False), start=1):
                if true != -100:
                    words += 1
                    right += head == true
                    joined += head == true or (true > 0 and ours[true - 1] == word)
        if not words:
            raise ValueError("`references` have no words, so that there is nothing to score.")
        return {"attachment_score": right / words, "undirected_attachment_score": joined / words}
