"""Schemes of spans: what is read off labels, and that no decoded sequence is ever invalid, by regular expressions."""

import itertools
import random
import re

import pytest
import torch

from hf_latent import ChainScores
from hf_latent.layers import SpanScheme
from hf_latent.layers.span_scheme import Span

LETTERS = {"BIO": ["BI"], "IOB1": ["BI", "I"], "BIOES": ["BIES", "BILU", "BMES"]}


def is_valid(labels: list[str], kind: str) -> bool:
    """Of labels `B-x` by definition; the letters of BIOES in whichever spelling."""
    text = " ".join(labels) + " " if labels else ""
    if kind == "BIO":
        return bool(re.fullmatch(r"(O |B-(\w+) (I-\2 )*)*", text))
    if kind == "BIOES":
        return bool(re.fullmatch(r"(O |[SU]-\w+ |B-(\w+) ([IM]-\2 )*[EL]-\2 )*", text))
    return all(b[0] != "B" or a[1:] == b[1:] for a, b in itertools.pairwise(["O", *labels]))


def random_scheme(seed: int, kind: str) -> SpanScheme:
    """With labels in some order, of a few types."""
    chance = random.Random(seed)
    letters = chance.choice(LETTERS[kind])
    labels = ["O"] + [f"{letter}-{name}" for name in ("x", "yy", "z")[: chance.randint(1, 3)] for letter in letters]
    chance.shuffle(labels)
    return SpanScheme(labels, None if kind != "IOB1" or "B" not in letters else "IOB1")


@pytest.mark.parametrize("kind", LETTERS)
@pytest.mark.parametrize("seed", range(8))
def test_no_decoded_sequence_is_invalid(kind, seed):
    scheme = random_scheme(seed, kind)
    assert scheme.kind == kind
    torch.manual_seed(seed)
    logits, mask = 3 * torch.randn(6, 9, len(scheme.labels)), torch.rand(6, 9) < 0.8
    decoder = scheme.decoder()
    for given in (None, mask):
        best, drawn = decoder.decode(logits, given), decoder.sample(logits, given, 5).flatten(0, 1).tolist()
        several = [tags for row in decoder.k_best(logits, 4, given) for tags, _ in row]
        for tags in [*best, *([tag for tag in own if tag >= 0] for own in drawn), *several]:
            assert is_valid([scheme.labels[tag] for tag in tags], kind)


@pytest.mark.parametrize("kind", LETTERS)
def test_every_valid_sequence_is_there(kind):
    for seed in range(3):
        scheme = random_scheme(seed, kind)
        sequences = itertools.product(range(len(scheme.labels)), repeat=3)
        valid = {tags for tags in sequences if is_valid([scheme.labels[tag] for tag in tags], kind)}
        found = scheme.decoder().k_best(torch.randn(1, 3, len(scheme.labels)), len(valid) + 1)[0]
        assert {tuple(tags) for tags, _ in found} == valid


def test_without_constraints_the_best_labels_are_the_argmax_to_the_bit():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        logits = torch.randn(20, 40, 9).to(dtype)  # in bfloat16 with ties
        logits[0] *= 1e20
        found = ChainScores(logits, torch.zeros(9, 9)).argmax()
        assert torch.equal(found, logits.argmax(2))


def test_what_the_labels_say():
    assert SpanScheme({1: "B-PER", 0: "O", 2: "I-PER"}).kind == "BIO"
    assert SpanScheme(["O", "I-PER", "I-LOC", "B-LOC"]).kind == "IOB1"
    assert SpanScheme(["O", "b_per", "i_per", "l_per", "u_per"]).kind == "BIOES"
    assert SpanScheme(["o", "B", "I"]).spans([1, 2, 0, 1]) == [Span("", 0, 2), Span("", 3, 4)]
    assert SpanScheme(["O", "B-a-b", "I-a-b"]).parts[2] == ("inside", "a-b")
    scheme = SpanScheme(["O", "B-x", "I-x", "I-y", "B-y"], "IOB1")
    assert scheme.spans([2, 2, 1, 3, 0, -1, 3]) == [Span("x", 0, 2), Span("x", 2, 3), Span("y", 3, 4), Span("y", 6, 7)]
    scheme = SpanScheme(["O", "B-x", "I-x", "E-x", "S-x"])
    assert scheme.spans([1, 2, 3, 4, 4, 1, 3]) == [Span("x", 0, 3), Span("x", 3, 4), Span("x", 4, 5), Span("x", 5, 7)]


def test_labels_that_say_nothing():
    with pytest.raises(ValueError, match=r"`id2label` must have labels that are 'O', .* got 'LABEL_1'"):
        SpanScheme(["O", "LABEL_1"])
    with pytest.raises(ValueError, match=r"must name the labels 0 to n - 1, got the ids \[0, 2\]"):
        SpanScheme({0: "O", 2: "B-x"})
    with pytest.raises(ValueError, match="must name spans"):
        SpanScheme(["O"])
    with pytest.raises(ValueError, match="B, E and S, or B, L and U"):
        SpanScheme(["O", "B-x", "I-x", "E-x"])
    with pytest.raises(ValueError, match="`kind` must be one of 'BIO', 'IOB1', 'BIOES', got 'IOB3'"):
        SpanScheme(["O", "B-x", "I-x"], "IOB3")
    with pytest.raises(ValueError, match="`kind` 'BIO' has no labels that end a span"):
        SpanScheme(["O", "B-x", "I-x", "E-x", "S-x"], "BIO")
