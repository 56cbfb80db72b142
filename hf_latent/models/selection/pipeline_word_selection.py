"""`pipeline("word-selection")`: texts in, labels and the words that they come from out."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY

from hf_latent.models.losses import problem_type
from hf_latent.models.selection.modeling_selection import LatentSelectionForSequenceClassification
from hf_latent.models.selection.rationale import Rationale, of_words
from hf_latent.models.words.pipeline_words import WordsPipeline
from hf_latent.models.words.texts import evaluation_mode, on_device


class SelectedText(dict):
    """What the pipeline says of a text, which JSON takes as it is. Its `["rationale"]` is made when it is asked for."""

    def __missing__(self, key: str) -> Any:
        if key != "rationale":
            raise KeyError(key)
        spans = tuple((begin, end) for begin, end in self["offsets"])
        return Rationale(self["text"], spans, tuple(self["weights"]))


class WordSelectionPipeline(WordsPipeline):
    """Texts classified by a [`LatentSelectionForSequenceClassification`], with the words that the label comes from.

    A text is a string, or a list of its words; several are taken as `LatentTreeParsingPipeline` takes them. For each text, a
    dictionary, as `json.dumps` takes it:

    - `label` and `score`: the likeliest label and its probability; of regression, the label's name and the value; with several
      labels for a text (`problem_type="multi_label_classification"`), lists of those above 0.5;
    - `words`: the chosen words, in their order;
    - `offsets`: [begin, end] of each in `text`;
    - `weights`: how much of each was seen, 1 unless the model's estimator relaxes the choice;
    - `text`: the string, or the words with blanks between them.

    Its `["rationale"]`, a [`Rationale`] that shows the text with these words marked in it (`to_text()`, `to_html()`; in a
    notebook, by itself), is made when it is asked for.

    >>> selector = pipeline("word-selection", model="outputs/reasons")
    >>> print(selector("A fascinating and fun film .")["rationale"].to_text())

    Args (of the pipeline, or of a call): as `LatentTreeParsingPipeline` has them.
    """

    name = "word-selection"

    def check_model(self) -> None:
        if not isinstance(self.model, LatentSelectionForSequenceClassification):
            raise ValueError(
                "The pipeline 'word-selection' needs a LatentSelectionForSequenceClassification, got a "
                f"{type(self.model).__name__}. Make one on an encoder by its `from_encoder`, and train that."
            )
        if self.model.config.estimator is None:
            raise ValueError("This model was trained with `estimator=None`: it sees all words, and chooses none.")

    def preprocess(self, input_: Any, truncation: bool = False, **_: Any) -> dict[str, Any]:
        found = super().preprocess(input_, truncation)
        return {"text": input_ if isinstance(input_, str) else None, **found}

    def _forward(self, input_tensors: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        inputs = dict(input_tensors)
        beside = {name: inputs.pop(name) for name in ("text", "words", "offsets")}
        inputs["word_ids"] = inputs.pop("word_numbers") - 1
        with evaluation_mode(self.model), torch.no_grad():
            output = self.model(**on_device(self.model, inputs))
        return {**beside, "logits": output.logits.float(), "chosen": output.chosen.float()}

    def postprocess(self, model_outputs: Mapping[str, Any], **_: Any) -> SelectedText:
        words, weights = model_outputs["words"], model_outputs["chosen"][0].tolist()
        text, spans = of_words(words, model_outputs["offsets"], model_outputs["text"])
        places = [place for place in range(len(words)) if weights[place] > 0]
        return SelectedText(
            **self._label(model_outputs["logits"][0]),
            words=[words[place] for place in places],
            offsets=[list(spans[place]) for place in places],
            weights=[weights[place] for place in places],
            text=text,
        )

    def _label(self, logits: torch.Tensor) -> dict[str, Any]:
        config = self.model.config
        problem = problem_type(config, torch.zeros(1, dtype=torch.long))
        names = [config.id2label[place] for place in range(len(logits))]
        if problem == "single_label_classification":
            score, best = logits.softmax(-1).max(-1)
            return {"label": names[int(best)], "score": float(score)}
        if problem == "multi_label_classification":
            likely = [(name, chance) for name, chance in zip(names, logits.sigmoid().tolist(), strict=True) if chance > 0.5]
            return {"label": [name for name, _ in likely], "score": [chance for _, chance in likely]}
        values = logits.tolist()
        return {"label": names[0], "score": values[0]} if len(names) == 1 else {"label": names, "score": values}


PIPELINE_REGISTRY.register_pipeline(
    "word-selection", WordSelectionPipeline, pt_model=AutoModelForSequenceClassification, type="text"
)

__all__ = ["WordSelectionPipeline"]
