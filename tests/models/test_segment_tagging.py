"""Spans as wholes: the loss, the best segmentation, words and tokens, the Trainer, the pipeline, saving, errors."""

import itertools

import pytest
import torch
from conftest import labels_of
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_latent import SegmentConfig, SegmentForTokenClassification, encode_words
from hf_latent.model_cards import write_model_card

LABELS = ["O", "B-x", "I-x", "B-y", "I-y"]
NAMES = dict(enumerate(LABELS))
TYPES = ["", "x", "y"]
TEXTS = ["a good unwatchable film", "not bad .", "film"]


def new_model(tiny_bert, wordpiece, **options) -> SegmentForTokenClassification:
    torch.manual_seed(0)
    options = {"id2label": NAMES, "longest_span": 3, **options}
    model = SegmentForTokenClassification.from_encoder(tiny_bert, wordpiece, **options)
    torch.nn.init.normal_(model.scorer.output.weight)
    for scores in (model.transitions, model.start_transitions, model.end_transitions):
        torch.nn.init.normal_(scores)
    for module in model.words.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.eval()


@pytest.fixture
def model(tiny_bert, wordpiece):
    return new_model(tiny_bert, wordpiece)


@pytest.fixture
def batch(wordpiece):
    return wordpiece(TEXTS, padding=True, return_tensors="pt")


def segmentations(model, segments: torch.Tensor, longest: int = 3) -> dict[tuple[int, ...], torch.Tensor]:
    """All of a sentence, as labels of its words, with their scores, one by one; `segments (n, longest, 3)`."""
    n, found = len(segments), {}

    def go_on(start: int, before: int | None, tags: tuple[int, ...], score: torch.Tensor) -> None:
        if start == n:
            found[tags] = score + (model.end_transitions[before] if before is not None else 0.0)
            return
        for label, size in itertools.product(range(3), range(1, longest + 1)):
            if start + size <= n and (label or size == 1):
                own = segments[start, size - 1, label]
                own = own + (model.start_transitions[label] if before is None else model.transitions[before, label])
                one = (0,) if not label else (2 * label - 1, *[2 * label] * (size - 1))
                go_on(start + size, label, tags + one, score + own)

    go_on(0, None, (), torch.zeros(()))
    return found


def test_loss_by_enumeration(model, batch):
    """Of all labels; of some, which the segmentations that have them share; and of none."""
    gold = [[0, 1, 2, 0], [3, -100, 0], [-100]]
    batch["word_ids"] = model.words.find_words(batch["input_ids"], batch["attention_mask"])
    output = model.train()(**batch, labels=labels_of(batch, gold))
    assert output.logits is None
    total = 0.0
    for own, segments in zip(gold, output.segments, strict=True):
        scores = segmentations(model, segments[: len(own)])
        having = [score for tags, score in scores.items() if all(g in (-100, t) for g, t in zip(own, tags, strict=True))]
        total = total + torch.stack(list(scores.values())).logsumexp(0) - torch.stack(having).logsumexp(0)
    torch.testing.assert_close(output.loss, total / 6)
    output.loss.backward()
    assert all(own.grad is not None and own.grad.isfinite().all() for own in model.parameters())


def test_logits_by_enumeration(model, batch):
    """The best label of each word is that of the best segmentation; the others have their probabilities."""
    output = model(**batch)
    for row, text in enumerate(TEXTS):
        own = segmentations(model, output.segments[row, : len(text.split())])
        chances = dict(zip(own, torch.stack(list(own.values())).softmax(0).tolist(), strict=True))
        best = max(own, key=own.get)
        for token, word in enumerate(batch.word_ids(row)):
            logits = output.logits[row, token]
            if word is None:
                assert not logits.any()
                continue
            assert logits.argmax() == best[word]
            sure = [sum(chance for tags, chance in chances.items() if tags[word] == label) for label in range(5)]
            for label in set(range(5)) - {best[word]}:
                assert logits[label].exp().item() == pytest.approx(sure[label], abs=1e-4)
            assert logits[best[word]].exp().item() == pytest.approx(max(sure), abs=1e-4)


def test_alone_and_in_a_batch_padded_on_either_side(model, wordpiece):
    for side in ("left", "right"):
        inputs = wordpiece(TEXTS, padding=True, padding_side=side, return_tensors="pt")
        together = model(**inputs).logits
        for row, text in enumerate(TEXTS):
            alone = model(**wordpiece(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(together[row][inputs["attention_mask"][row].bool()], alone, rtol=0, atol=1e-4)


def test_no_words(model, wordpiece):
    empty = wordpiece(["", ""], return_tensors="pt")
    assert model(**empty).logits.shape == (2, 2, 5)
    output = model.train()(**empty, labels=torch.full_like(empty["input_ids"], -100))
    assert output.loss == 0
    output.loss.backward()


def test_the_pipeline_tells_spans_with_their_probabilities(model, wordpiece):
    tagger = pipeline("span-tagging", model=model, tokenizer=wordpiece)
    for text in TEXTS:
        output = model(**wordpiece(text, return_tensors="pt"))
        own = segmentations(model, output.segments[0])
        chances = dict(zip(own, torch.stack(list(own.values())).softmax(0).tolist(), strict=True))
        ranked = sorted(own, key=own.get, reverse=True)
        for tags, one in zip(ranked, tagger(text, num_best=3), strict=False):
            assert one["score"] == pytest.approx(chances[tags], abs=1e-4)
            spans = model.scheme.spans(tags)
            assert [entity["entity_group"] for entity in one["entities"]] == [span.type for span in spans]
            for entity, span in zip(one["entities"], spans, strict=True):
                sure = sum(chance for other, chance in chances.items() if span in model.scheme.spans(other))
                assert entity["score"] == pytest.approx(sure, abs=1e-4)
                assert text[entity["start"] : entity["end"]] == " ".join(text.split()[span.start : span.end])
        assert tagger(text) == tagger(text, num_best=1)[0]["entities"]
        assert not tagger(text, begin=-100.0)
        assert sum(len(one["word"].split()) for one in tagger(text, begin=0.0, inside=100.0)) >= len(text.split()) - 1
    assert tagger("") == []
    words = tagger([["a", "good", "film"]], is_split_into_words=True)[0]
    assert all(entity["word"] in "a good film" for entity in words)


def test_saved_loaded_and_made_by_the_auto_classes(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded) is SegmentForTokenClassification
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SegmentConfig)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_the_trainer_learns_and_evaluates(tiny_bert, wordpiece, tmp_path):
    """Spans are "good" with all that follows up to the next "a": their ends are told by what comes after them."""
    model = new_model(tiny_bert, wordpiece)
    words = [["a", "good", "film"], ["a", "bad", "film", "a"], ["good", "very", "film", "a", "film"]] * 12
    labels = [[0, 1, 2], [0, 0, 0, 0], [3, 4, 4, 0, 0]] * 12
    data = Dataset.from_dict(encode_words(wordpiece, words, labels=labels)).remove_columns("word_ids")
    arguments = TrainingArguments(
        tmp_path, num_train_epochs=8, learning_rate=0.01, report_to="none", disable_tqdm=True, per_device_train_batch_size=8
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForTokenClassification(wordpiece),
        compute_metrics=lambda found: {
            "accuracy": (found.predictions.argmax(-1) == found.label_ids)[found.label_ids >= 0].mean()
        },
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1.0


def test_a_compiled_model_says_the_same(model, batch):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    word_ids = model.words.find_words(batch["input_ids"], batch["attention_mask"])
    labels = labels_of(batch, [[0, 1, 2, 0], [3, 4, 0], [1]])
    torch.testing.assert_close(compiled(**batch, word_ids=word_ids).logits, model(**batch).logits)
    expected = model.train()(**batch, labels=labels).loss
    torch.testing.assert_close(compiled(**batch, word_ids=word_ids, labels=labels).loss, expected)


def test_bad_input_is_named(tiny_bert, wordpiece, batch, model):
    def error(words):
        with pytest.raises(ValueError, match=r".") as found:
            model(**batch, labels=labels_of(batch, words))
        return str(found.value)

    assert "word 2 of sentence 0 is 'I-y' after 'B-x'" in error([[0, 1, 4, 0], [3, 4, 0], [1]])
    assert "labels[0, 1] is 5" in error([[5, 1, 2, 0], [3, 4, 0], [1]])
    too_long = error([[1, 2, 2, 2], [3, 4, 0], [1]])
    assert "those of labels[0] are of no segmentation: its longest span has 4 words" in too_long
    assert "larger `longest_span`" in too_long
    with pytest.raises(ValueError, match="`span_scheme` must be one, or 'auto'"):
        SegmentConfig(span_scheme=None)
    with pytest.raises(ValueError, match="`longest_span` must be at least 1, got 0"):
        SegmentConfig(longest_span=0)
    with pytest.raises(ValueError, match="`id2label` must have labels that are 'O', or one of the letters"):
        SegmentForTokenClassification.from_encoder(tiny_bert, wordpiece, id2label={0: "noun", 1: "verb"})
    with pytest.raises(ValueError, match="got those of IOB1"):
        SegmentForTokenClassification.from_encoder(tiny_bert, wordpiece, id2label={0: "O", 1: "I-x"})


def test_its_card(model, wordpiece, tmp_path):
    text = write_model_card(tmp_path, model, wordpiece, "someone/spans", "a good film").read_text(encoding="utf-8")
    for part in ("semi-Markov conditional random field", "| a span has at most | 3 words |", "Lafferty"):
        assert part in text, part
