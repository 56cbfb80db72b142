"""`pipeline("span-tagging")`: valid spans with probabilities, by any token classifier as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, TokenClassificationPipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.token_classification import AggregationStrategy

from hf_latent.inference.checks import check_count
from hf_latent.layers import SpanScheme
from hf_latent.models.spans.best_spans import BestSpans, best_of_chain, best_of_segments
from hf_latent.models.spans.modeling_segments import SegmentForTokenClassification
from hf_latent.models.spans.modeling_tagger import SequenceTagger

# What goes past the model.
BESIDE = ("special_tokens_mask", "offset_mapping", "sentence", "is_last", "word_ids", "word_to_chars_map")
OPTIONS = ("begin", "inside", "num_best", "stride", "is_split_into_words", "delimiter", "offset_mapping")


class SpanTaggingPipeline(TokenClassificationPipeline):
    """The spans (named entities, say) of the best *valid* sequence of labels, by any model for token classification.

    Nothing is trained. `pipeline("token-classification")` takes the best label of each token by itself, so that an `I-PER` may
    stand alone or after a `B-LOC`; this finds the sequence with the highest sum of logits among those that are valid in the
    scheme of the model's labels (`SpanScheme`). A word has the logits of its first piece, as models are trained in
    transformers' examples. A [`CRFForTokenClassification`] keeps the transitions that it has learned, and a
    [`SegmentForTokenClassification`] its scores of spans.

    For each text a list of dictionaries, those that `pipeline("token-classification", aggregation_strategy="first")` gives:
    `entity_group`, `score`, `word`, `start` and `end`; but `score` is the probability of the span as a whole, among all valid
    sequences. With `num_best=k`, for each text the k best sequences, as `{"score": its probability, "entities": [...]}`.

    >>> tagger = pipeline("span-tagging", model="dslim/bert-base-NER")
    >>> tagger("Ada Lovelace wrote to Charles Babbage.")

    Args (of the pipeline, or of a call):
        begin: what is added to the score wherever a span begins: above 0 for recall, below 0 for precision.
        inside: what is added wherever one goes on, for each word after its first. `hf_latent.training.choose_span_biases`
            chooses both, for all but segments.
        num_best: how many sequences are told, by default the best one alone, as its spans.
        stride, is_split_into_words, delimiter, offset_mapping: as in transformers' pipeline.

    Raises:
        TypeError: an unknown option.
        ValueError: a model whose labels are no spans; a tokenizer that is not a fast one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tagger = self.model if isinstance(self.model, SequenceTagger) else None
        own = None if self.tagger is None else self.tagger.scheme
        self.scheme = SpanScheme(self.model.config.id2label) if own is None else own
        if not getattr(self.tokenizer, "is_fast", False):
            kind = type(self.tokenizer).__name__
            raise ValueError(f"`tokenizer` must be a fast one, which tells where words begin, got {kind}.")

    def _sanitize_parameters(
        self, begin: float | None = None, inside: float | None = None, num_best: int | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(kwargs.keys() - set(OPTIONS))
        if unknown:
            raise TypeError(f"The pipeline 'span-tagging' has no option {unknown[0]!r}. It takes {', '.join(OPTIONS)}.")
        for name, value in (("begin", begin), ("inside", inside)):
            if value is not None and not np.isfinite(value):
                raise ValueError(f"`{name}` must be a finite number, got {value!r}.")
        if num_best is not None:
            check_count("num_best", num_best)
        # Transformers' own wants to know of an aggregation where texts come in pieces.
        preprocess, forward, _ = super()._sanitize_parameters(aggregation_strategy=AggregationStrategy.FIRST, **kwargs)
        own = {"begin": begin, "inside": inside, "num_best": num_best}
        return preprocess, forward, {name: value for name, value in own.items() if value is not None}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        """As in transformers; one of our taggers is asked for its scores, of the words that were given or that it finds."""
        if self.tagger is None:
            found: dict[str, Any] = super()._forward(model_inputs)
            return found
        beside = {name: model_inputs.pop(name, None) for name in BESIDE}
        word_ids = self.tagger.words.find_words(model_inputs["input_ids"], model_inputs.get("attention_mask"))
        if beside["word_ids"] is not None:
            given = [-1 if word is None else word for word in beside["word_ids"]]
            word_ids = torch.tensor([given], device=word_ids.device)
        output = self.tagger(**model_inputs, word_ids=word_ids, decode=False)
        logits = output.segments.new_zeros(*word_ids.shape, 1) if output.logits is None else output.logits
        own = {"segments": output.segments} if "segments" in output else {}
        return {"logits": logits, **own, "own_word_ids": word_ids, **beside, **model_inputs}

    def postprocess(  # type: ignore[override]
        self, all_outputs: Sequence[Mapping[str, Any]], begin: float = 0.0, inside: float = 0.0, num_best: int | None = None
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        decoder = self.scheme.decoder(begin, inside, getattr(self.tagger, "crf", None))
        for outputs in all_outputs:
            groups = self._words(self._pieces(outputs, all_outputs[0]), outputs.get("own_word_ids"))
            if self.tagger is not None and "segments" in outputs:
                best = self._best_segments(outputs["segments"][:, : len(groups)], begin, inside, num_best or 1)
            else:
                size = (len(groups), len(self.scheme.labels))
                logits = torch.tensor(np.array([group[0]["scores"] for group in groups])).view(size)
                best = best_of_chain(self.scheme, decoder.chain(logits[None])[0], num_best or 1)
            for one in best:
                spans = zip(one.spans, one.probabilities, strict=True)
                entities = [self._entity(span.type, groups[span.start : span.end], chance) for span, chance in spans]
                found.append({"score": one.probability, "entities": entities})
        if num_best is None:
            entities = [entity for one in found for entity in one["entities"]]
            return self.aggregate_overlapping_entities(entities) if len(all_outputs) > 1 else entities
        if len(all_outputs) > 1:
            raise ValueError("`num_best` is for texts that are read in one piece, and `stride` has divided this one.")
        return found

    def _best_segments(self, segments: torch.Tensor, begin: float, inside: float, count: int) -> list[BestSpans]:
        """By the scores of segments `(1, n, longest, labels)`, with the biases added to those that are spans."""
        assert isinstance(self.tagger, SegmentForTokenClassification)
        biased = begin + inside * torch.arange(segments.shape[2])[:, None]
        segments = segments + torch.where(torch.arange(segments.shape[3]) > 0, biased, 0.0)
        with torch.no_grad():
            lengths = torch.tensor([segments.shape[1]])
            own = self.tagger.distribution(segments.to(self.tagger.device), lengths.to(self.tagger.device))
            return best_of_segments(self.tagger.spans, own, count)

    @staticmethod
    def _words(pieces: list[dict[str, Any]], word_ids: torch.Tensor | None) -> list[list[dict[str, Any]]]:
        """The pieces of each word, by the `word_ids (1, tokens)` of a model that has them."""
        groups: list[list[dict[str, Any]]] = []
        before = None
        for piece in pieces:
            own = None if word_ids is None else int(word_ids[0, piece["index"]])
            if own is not None and own < 0:
                continue
            if groups and (piece["is_subword"] if own is None else own == before):
                groups[-1].append(piece)
            else:
                groups.append([piece])
            before = own
        return groups

    def _pieces(self, outputs: Mapping[str, Any], first: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Of each token that is not a special one: its logits, and where it stands."""
        offsets = outputs["offset_mapping"]
        pieces: list[dict[str, Any]] = self.gather_pre_entities(
            first["sentence"],
            outputs["input_ids"][0],
            outputs["logits"][0].float().numpy(),
            None if offsets is None else offsets[0],
            outputs["special_tokens_mask"][0].numpy(),
            AggregationStrategy.FIRST,
            word_ids=outputs.get("word_ids"),
            word_to_chars_map=first.get("word_to_chars_map"),
        )
        return pieces

    def _entity(self, kind: str, words: Sequence[Sequence[Mapping[str, Any]]], probability: float) -> dict[str, Any]:
        joined = self.tokenizer.convert_tokens_to_string
        return {
            "entity_group": kind,
            "score": probability,
            "word": joined([joined([piece["word"] for piece in word]) for word in words]),
            "start": int(words[0][0]["start"]),
            "end": int(words[-1][-1]["end"]),
        }


PIPELINE_REGISTRY.register_pipeline("span-tagging", SpanTaggingPipeline, pt_model=AutoModelForTokenClassification, type="text")

__all__ = ["SpanTaggingPipeline"]
