"""Valid spans by models as they are: their probabilities, the pipeline, and the dial between precision and recall."""

import itertools
import json

import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, pipeline

from hf_latent import ChainScores
from hf_latent.layers import ConditionalRandomField, SpanScheme, span_probabilities
from hf_latent.layers.span_scheme import Span
from hf_latent.training import choose_span_biases

SCHEMES = {
    "BIO": ["O", "B-x", "I-x", "B-y", "I-y"],
    "IOB1": ["O", "I-x", "B-x", "I-y"],
    "BIOES": ["O", "B-x", "I-x", "E-x", "S-x"],
}
TEXT = "a good unwatchable film , not bad ."


# --- Probabilities


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("constrained", [True, False])
def test_probabilities_by_enumeration(kind, constrained):
    """Of each span that any sequence has, over all sequences: a sentence of four words and one of two."""
    scheme = SpanScheme(SCHEMES[kind])
    emissions, lengths = 2 * torch.randn(2, 4, len(scheme.labels)).double(), torch.tensor([4, 2])
    if constrained:
        chain, _ = scheme.decoder(0.3, -0.2).double().chain(emissions, torch.arange(4) < lengths[:, None])
    else:
        chain = ChainScores(emissions, torch.randn(len(scheme.labels), len(scheme.labels)).double(), lengths)
    for row, n in enumerate(lengths.tolist()):
        expected: dict[Span, float] = {}
        for tags in itertools.product(range(len(scheme.labels)), repeat=n):
            padded = torch.zeros(2, 4, dtype=torch.long)
            padded[row, :n] = torch.tensor(tags)
            allowed = chain.score(padded)[row] > -torch.inf
            for span in scheme.spans(tags) if allowed else []:
                expected[span] = expected.get(span, 0.0) + chain.log_prob(padded)[row].exp().item()
        spans = [[], []]
        spans[row] = list(expected)
        assert span_probabilities(scheme, chain, spans)[row] == pytest.approx(list(expected.values()), abs=1e-9)
    impossible = [[Span("x", 0, 1), Span("unknown", 0, 1)], []]
    assert span_probabilities(scheme, chain, impossible)[0][1] == 0.0
    with pytest.raises(ValueError, match="must lie in their sentences, but sentence 1 of 2 words has"):
        span_probabilities(scheme, chain, [[], [Span("x", 1, 3)]])
    with pytest.raises(ValueError, match="must be of the 2 sentences of `chain`, got those of 1"):
        span_probabilities(scheme, chain, [[]])


# --- The pipeline


@pytest.fixture
def model(wordpiece):
    labels = dict(enumerate(SCHEMES["BIO"]))
    config = BertConfig(
        vocab_size=len(wordpiece),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=labels,
    )
    model = BertForTokenClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    return model


def fixed(model, rows):
    """A model that says these labels, whatever it reads, of the pieces of a text."""
    scores = torch.zeros(len(rows) + 2, 5)
    for place, (label, score) in enumerate(rows, start=1):
        scores[place, label] = score
    model.forward = lambda input_ids, **_: (scores[None],)
    return model


def test_valid_spans_are_those_of_transformers(model, wordpiece):
    """Pieces: a good un ##watch ##able film , not bad ."""
    rows = [(0, 3), (1, 3), (2, 3), (4, 9), (4, 9), (0, 3), (3, 3), (3, 3), (4, 3), (0, 3)]
    fixed(model, rows)
    theirs = pipeline("token-classification", model=model, tokenizer=wordpiece, aggregation_strategy="first")(TEXT)
    ours = pipeline("span-tagging", model=model, tokenizer=wordpiece)(TEXT)
    assert [one["entity_group"] for one in ours] == ["x", "y", "y"]
    for one, other in zip(ours, theirs, strict=True):
        assert {name: one[name] for name in one if name != "score"} == {name: other[name] for name in other if name != "score"}
    assert TEXT[ours[0]["start"] : ours[0]["end"]] == "good unwatchable"
    json.dumps(ours)


def test_no_span_is_invalid(model, wordpiece):
    """An I-y that opens a span, or goes on after a B-x, is read in the way that costs least."""
    words = [(0, 3), (1, 3), (4, 5), (0, 0), (0, 0), (0, 3), (0, 3), (4, 1), (0, 3), (0, 3)]
    fixed(model, words)
    tagger = pipeline("span-tagging", model=model, tokenizer=wordpiece)
    found = tagger(TEXT)
    # B-y I-y, for B-x I-y
    assert [(one["entity_group"], TEXT[one["start"] : one["end"]]) for one in found] == [("y", "good unwatchable")]
    logits = model.forward(None)[0][0, [1, 2, 3, 6, 7, 8, 9, 10]]
    chain, _ = tagger.scheme.decoder().chain(logits[None])
    assert found[0]["score"] == pytest.approx(span_probabilities(tagger.scheme, chain, [[Span("y", 1, 3)]])[0][0])


def test_best_sequences(model, wordpiece):
    tagger = pipeline("span-tagging", model=model, tokenizer=wordpiece)
    best = tagger(TEXT)
    several = tagger(TEXT, num_best=4)
    assert len(several) == 4
    assert several[0]["entities"] == best
    scores = [one["score"] for one in several]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1
    for one in several:
        assert all(entity["score"] >= one["score"] - 1e-9 for entity in one["entities"])  # a span is in several sequences
    assert len(tagger("bad", num_best=9)) == 3  # O, B-x and B-y


def test_biases_and_inputs(model, wordpiece):
    tagger = pipeline("span-tagging", model=model, tokenizer=wordpiece)
    counts = [len(tagger(TEXT, begin=begin)) for begin in (-100.0, 0.0, 100.0)]
    assert counts[0] == 0
    assert counts[0] <= counts[1] <= counts[2] == 8  # each word a span
    assert len(tagger(TEXT, begin=10.0, inside=100.0)) == 1  # all words together
    assert pipeline("span-tagging", model=model, tokenizer=wordpiece, begin=-100.0)(TEXT) == []
    assert tagger([TEXT, "bad"], batch_size=2) == [tagger(TEXT), tagger("bad")]
    split = tagger([TEXT.split()], is_split_into_words=True)
    assert split[0] == tagger(TEXT)
    assert tagger("") == []


def test_long_texts_in_pieces(model, wordpiece):
    tagger = pipeline("span-tagging", model=model, tokenizer=wordpiece, begin=10.0)
    wordpiece.model_max_length, before = 6, wordpiece.model_max_length
    try:
        found = tagger(TEXT, stride=2)
        with pytest.raises(ValueError, match="`num_best` is for texts that are read in one piece"):
            tagger(TEXT, stride=2, num_best=2)
    finally:
        wordpiece.model_max_length = before
    assert found[-1]["end"] == len(TEXT)
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(found))


def test_what_the_pipeline_does_not_take(model, wordpiece):
    tagger = pipeline("span-tagging", model=model, tokenizer=wordpiece)
    with pytest.raises(TypeError, match="has no option 'top_k'"):
        tagger(TEXT, top_k=3)
    with pytest.raises(ValueError, match="`begin` must be a finite number, got inf"):
        tagger(TEXT, begin=float("inf"))
    with pytest.raises(ValueError, match="`num_best` must be"):
        tagger(TEXT, num_best=0)
    model.config.id2label = {0: "NOUN", 1: "VERB", 2: "ADJ", 3: "DET", 4: "X"}
    with pytest.raises(ValueError, match="`id2label` must have labels that are 'O', or one of the letters"):
        pipeline("span-tagging", model=model, tokenizer=wordpiece)


# --- The dial


def test_biases_are_chosen_by_the_development_set():
    """Logits that miss spans by a margin: a bias brings them back, where there is one that does no harm."""
    scheme = SpanScheme(SCHEMES["BIO"])
    labels = [[1, 2, 0, 3, -100], [0, 0, 1], []]
    logits = [torch.nn.functional.one_hot(torch.tensor(own).clamp(min=0).long(), 5).float() for own in labels]
    for own in logits:
        own[:, 0] += 1.2  # O before all else
    before = choose_span_biases(scheme, logits, labels, candidates=[0.0])
    assert (before.precision, before.recall) == (0.0, 0.0)
    found = choose_span_biases(scheme, logits, labels)
    assert (found.begin, found.inside, found.precision, found.recall) == (0.5, 0.5, 1.0, 1.0)
    right = [[own[word] for word in range(len(own)) if own[word] >= 0] for own in labels[:2]]
    for own, tags in zip(logits[:2], right, strict=True):
        assert scheme.decoder(found.begin, found.inside).decode(own[None, : len(tags)]) == [tags]


def test_biases_beside_learned_transitions():
    """A field that learned that no span begins needs as much for it as it takes."""
    scheme = SpanScheme(SCHEMES["BIO"])
    learned = ConditionalRandomField(5, batch_first=True, constraints=scheme.constraints)
    with torch.no_grad():
        for scores in learned.parameters():
            scores.zero_()
        learned.transitions[:, [1, 3]] = learned.start_transitions[[1, 3]] = -4.2
    labels = [[0, 1, 0, 0]] * 3
    logits = [torch.nn.functional.one_hot(torch.tensor(own), 5).float() for own in labels]
    assert choose_span_biases(scheme, logits, labels).begin == 0.0
    found = choose_span_biases(scheme, logits, labels, learned=learned)
    assert (found.begin, found.precision, found.recall) == (3.5, 1.0, 1.0)
    tags = scheme.decoder(found.begin, found.inside, learned).decode(torch.stack(logits))
    assert tags == labels


def test_the_dial():
    scheme = SpanScheme(SCHEMES["BIO"])
    torch.manual_seed(1)
    labels = [[1, 0, 0, 3, 0, 0, 1, 2] for _ in range(20)]
    logits = [torch.nn.functional.one_hot(torch.tensor(own), 5) + 0.8 * torch.randn(8, 5) for own in labels]
    careful, even, eager = (choose_span_biases(scheme, logits, labels, beta) for beta in (0.2, 1.0, 5.0))
    assert careful.precision >= even.precision >= eager.precision
    assert careful.recall <= even.recall <= eager.recall
    assert careful.precision > eager.precision
    with pytest.raises(ValueError, match="`beta` must be a positive number, got 0"):
        choose_span_biases(scheme, logits, labels, 0)
    with pytest.raises(ValueError, match="must be of the 20 sentences that have `logits`, got those of 19"):
        choose_span_biases(scheme, logits, labels[1:])
    with pytest.raises(ValueError, match="no span in them"):
        choose_span_biases(scheme, logits[:1], [[0] * 8])
    with pytest.raises(ValueError, match="`labels` of sentence 0 are 7, but its `logits` are 8"):
        choose_span_biases(scheme, logits[:1], [[0] * 7])
