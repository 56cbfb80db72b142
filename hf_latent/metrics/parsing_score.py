"""How many heads and relations are right."""

import datasets
import evaluate

from hf_latent.trees import parsing_scores


class ParsingScore(evaluate.Metric):
    """See `_info`."""

    def _info(self) -> evaluate.MetricInfo:
        tree = {
            "heads": datasets.Sequence(datasets.Value("int64")),
            "relations": datasets.Sequence(datasets.Value("string")),
        }
        return evaluate.MetricInfo(
            description="UAS, LAS and CLAS of sentences whose words are given, as the CoNLL 2018 shared task counts them (see "
            "`hf_latent.trees.parsing_scores`).",
            citation="",
            inputs_description="predictions, references: for each sentence a dictionary of the `heads` of its words, 0 for "
            "ROOT and j for the j-th word, and of their `relations`. Words whose head in the reference is -100 do not count. "
            "punctuation: False to leave out words whose relation in the reference is `punct`. subtypes: True to tell subtypes "
            "of relations apart.",
            features=datasets.Features({"predictions": tree, "references": tree}),
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], punctuation: bool = True, subtypes: bool = False
    ) -> dict[str, float]:
        return parsing_scores(
            [tree["heads"] for tree in predictions],
            [tree["heads"] for tree in references],
            [tree["relations"] for tree in predictions],
            [tree["relations"] for tree in references],
            punctuation,
            subtypes,
        )
