"""One run: a tagger with a conditional random field, one of segments, or a network that labels each word by itself."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from data import Tagged, read
from quiet_trainer import quiet_trainer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from upper_layers import learn_upper_layers

from hf_latent import (
    BiLstmModel,
    CRFForTokenClassification,
    DataCollatorForLatentTrees,
    SegmentForTokenClassification,
)
from hf_latent.layers import SpanScheme, span_probabilities
from hf_latent.layers.span_scheme import Span
from hf_latent.training import encoder_parameter_groups

Tagger = CRFForTokenClassification | SegmentForTokenClassification

BATCH, TOGETHER = 16, 64
# Layers of a pretrained encoder that do not learn, from below; nor do the embeddings.
FROZEN = 3
BINS = 10
# The last of the training sentences, where there are no others to choose settings by.
HELD_OUT = 300


def new_encoder(run: dict[str, Any], source: str, texts: list[Tagged]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Word vectors below a BiLSTM, or a pretrained transformer of which the upper layers learn."""
    if run["encoder"] == "word vectors":
        vocabulary = {word.lower() for part in texts for own in part.words for word in own}
        return BiLstmModel.from_word_vectors(source, vocabulary, hidden_size=200, freeze_embeddings=True)
    encoder = AutoModel.from_pretrained(source)
    learn_upper_layers(encoder, FROZEN)
    return encoder, AutoTokenizer.from_pretrained(source)


def new_model(
    run: dict[str, Any], encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], longest: int
) -> Tagger:
    """The tagger. A field without transitions is a softmax at each word; segments have up to as many words as are `longest`."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    if run["kind"] == "segments":
        options = {"longest_span": longest, "dropout": 0.33, **labels}
        return SegmentForTokenClassification.from_encoder(encoder, tokenizer, **options)
    scheme = "auto" if run["kind"] == "crf" else None
    model = CRFForTokenClassification.from_encoder(encoder, tokenizer, span_scheme=scheme, dropout=0.33, **labels)
    if run["kind"] == "softmax":
        for scores in model.crf.parameters():
            scores.requires_grad_(False).zero_()
    return model


def train(sources: dict[str, str], files: dict[str, dict[str, str]], /, **run: Any) -> dict[str, Any]:
    """The figures of one run, after its last step, on validation and test data."""
    torch.set_num_threads(1)
    set_seed(run["seed"])
    parts = {name: read(Path(file)) for name, file in files[run["task"]].items()}
    if "validation" not in parts:
        parts["train"], parts["validation"] = parts["train"].divided(HELD_OUT)
    names = sorted({label for part in parts.values() for own in part.labels for label in own})
    encoder, tokenizer = new_encoder(run, sources[run["encoder"]], list(parts.values()))
    model = new_model(run, encoder, tokenizer, names, longest_span(names, parts["train"]))
    rate = run["learning_rate"]
    own_rate = rate if run["encoder"] == "word vectors" else rate / 10
    arguments = {
        "max_steps": run["steps"],
        "per_device_train_batch_size": BATCH,
        "train_sampling_strategy": "group_by_length",
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "seed": run["seed"],
    }
    collator = DataCollatorForLatentTrees(tokenizer)
    trainer = quiet_trainer(
        model,
        torch.optim.AdamW(encoder_parameter_groups(model, rate, own_rate, weight_decay=0.01)),
        arguments,
        train_dataset=parts["train"].some(run["sentences"], run["seed"]).dataset(tokenizer, names),
        data_collator=collator,
        processing_class=tokenizer,
    )
    started = time.perf_counter()
    trainer.train()
    found: dict[str, Any] = {"seconds": time.perf_counter() - started}
    for name in ("validation", "test"):
        found[name] = figures(model, DataLoader(parts[name].dataset(tokenizer, names), TOGETHER, collate_fn=collator))
    return found


class Sentences(NamedTuple):
    """Of some sentences, tags that are right, tags that were chosen, and how likely spans of each sentence are."""

    gold: list[list[int]]
    chosen: list[list[int]]
    chances: Callable[[list[list[Span]]], list[list[float]]]


def longest_span(names: list[str], sentences: Tagged) -> int:
    """In words; 1 where labels are no spans."""
    if not any(name.startswith("B-") for name in names):
        return 1
    scheme = SpanScheme(names)
    spans = [span for own in sentences.labels for span in scheme.spans([names.index(label) for label in own])]
    return max(span.end - span.start for span in spans)


@torch.no_grad()
def tagged(model: Tagger, batches: DataLoader, valid: bool) -> Iterator[Sentences]:
    """Sentences as the model tags them; or as the best `valid` sequences by its scores have it."""
    model.eval()
    for batch in batches:
        labels = batch.pop("labels")
        output = model(**batch, decode=False)
        tags, chances = decoded(model, output, valid)
        chosen = [[tag for tag in own if tag >= 0] for own in tags.tolist()]
        yield Sentences([own[own >= 0].tolist() for own in labels], chosen, chances)


def decoded(model: Tagger, output: Any, valid: bool) -> tuple[Tensor, Callable[[list[list[Span]]], list[list[float]]]]:
    """The best tags of each word, and how likely spans are."""
    if isinstance(model, SegmentForTokenClassification):
        segments = model.distribution(output.segments, output.num_words)
        marginals, types = segments.marginals(), model.spans.types

        def chance(row: int, span: Span) -> float:
            size = span.end - span.start
            return float(marginals[row, span.start, size - 1, 1 + types.index(span.type)])

        tags = model.spans.tags_of(segments.argmax())
        return tags, lambda each: [[chance(row, span) for span in spans] for row, spans in enumerate(each)]
    field = SpanScheme(model.config.id2label).decoder() if valid else model.crf
    inside = torch.arange(output.emissions.shape[1]) < output.num_words[:, None]
    chain, _ = field.chain(output.emissions, inside)
    return chain.argmax(), lambda each: span_probabilities(SpanScheme(model.config.id2label), chain, each)


def figures(model: Tagger, batches: DataLoader) -> dict[str, Any]:
    """In per cent: words that are right and, for spans, what `of_spans` says; also of valid sequences by a model without."""
    found: dict[str, Any] = {}
    as_it_is = list(tagged(model, batches, valid=False))
    right = [
        gold == chosen
        for some in as_it_is
        for own in zip(some.gold, some.chosen, strict=True)
        for gold, chosen in zip(*own, strict=True)
    ]
    found["words"] = 100 * sum(right) / len(right)
    if any(name.startswith("B-") for name in model.config.id2label.values()):
        scheme = SpanScheme(model.config.id2label)
        found["spans"] = of_spans(scheme, as_it_is)
        if model.scheme is None:
            found["valid spans"] = of_spans(scheme, tagged(model, batches, valid=True))
    return found


def of_spans(scheme: SpanScheme, batches: Iterable[Sentences]) -> dict[str, float]:
    """In per cent: precision, recall and F1 of spans, all types together; of the chosen spans, those that begin with a label
    that cannot; and how far the probabilities of chosen spans are, on average, from the share that is right (in ten bins)."""
    right = chosen = gold = invalid = 0
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for some in batches:
        own = [scheme.spans(tags) for tags in some.chosen]
        chances = some.chances(own)
        for tags, theirs, spans, sure in zip(some.chosen, some.gold, own, chances, strict=True):
            known = set(scheme.spans(theirs))
            gold, chosen = gold + len(known), chosen + len(spans)
            for span, chance in zip(spans, sure, strict=True):
                right += span in known
                invalid += not begins(scheme, tags, span)
                bins[min(int(chance * BINS), BINS - 1)].append(chance - (span in known))
    return {
        "precision": 100 * right / max(chosen, 1),
        "recall": 100 * right / max(gold, 1),
        "f1": 200 * right / max(chosen + gold, 1),
        "invalid": 100 * invalid / max(chosen, 1),
        "calibration error": 100 * sum(abs(sum(own)) for own in bins) / max(chosen, 1),
    }


def begins(scheme: SpanScheme, tags: list[int], span: Span) -> bool:
    """Whether the first label of a span may stand where it stands."""
    allowed, own = scheme.constraints, tags[span.start]
    return bool(allowed.transitions[tags[span.start - 1], own] if span.start else allowed.starts[own])
