"""Labels of words as whole sequences: the loss, valid sequences, words and tokens, the Trainer, pipelines, saving."""

import itertools

import pytest
import torch
from conftest import labels_of
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_latent import (
    CRFConfig,
    CRFForTokenClassification,
    DataCollatorForLatentTrees,
    SpanTaggingPipeline,
    encode_words,
    parse,
)
from hf_latent.layers import SpanScheme
from hf_latent.model_cards import write_model_card
from hf_latent.models.spans.modeling_crf import decoding
from hf_latent.structures import ChainScores

LABELS = ["O", "B-x", "I-x", "B-y", "I-y"]
NAMES = dict(enumerate(LABELS))
ENDS = ["O", "B-x", "I-x", "E-x", "S-x", "I-y"]
TEXTS = ["a good unwatchable film", "not bad .", "film"]


def new_model(tiny_bert, wordpiece, **options) -> CRFForTokenClassification:
    torch.manual_seed(0)
    model = CRFForTokenClassification.from_encoder(tiny_bert, wordpiece, id2label=NAMES, **options)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    torch.nn.init.normal_(model.crf.transitions)
    for module in model.words.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture
def model(tiny_bert, wordpiece):
    return new_model(tiny_bert, wordpiece).eval()


@pytest.fixture
def batch(wordpiece):
    return wordpiece(TEXTS, padding=True, return_tensors="pt")


def sequences(model, emissions, scheme=None):
    """All sequences over the words of a sentence that are valid, and their scores, one by one."""
    crf, found = model.crf, {}
    for tags in itertools.product(range(5), repeat=len(emissions)):
        score = crf.start_transitions[tags[0]] + crf.end_transitions[tags[-1]]
        score = score + sum(emissions[word, tag] for word, tag in enumerate(tags))
        score = score + sum(crf.transitions[one, two] for one, two in itertools.pairwise(tags))
        valid = all(
            LABELS[two][0] != "I" or (one >= 0 and LABELS[one][0] != "O" and LABELS[one][2:] == LABELS[two][2:])
            for one, two in itertools.pairwise((-1, *tags))
        )
        if valid or scheme is None:
            found[tags] = score
    return found


@pytest.mark.parametrize("scheme", ["auto", None])
def test_loss_by_enumeration(tiny_bert, wordpiece, batch, scheme):
    """Of all labels; of some, which the sequences that have them share; and of none."""
    model = new_model(tiny_bert, wordpiece, span_scheme=scheme)
    gold = [[0, 1, 2, 0], [3, -100, 0], [-100]]
    batch["word_ids"] = model.words.find_words(batch["input_ids"], batch["attention_mask"])
    output = model(**batch, labels=labels_of(batch, gold))
    total = 0.0
    for own, emissions in zip(gold, output.emissions, strict=True):
        scores = sequences(model, emissions[: len(own)], scheme)
        having = [score for tags, score in scores.items() if all(g in (-100, t) for g, t in zip(own, tags, strict=True))]
        total = total + torch.stack(list(scores.values())).logsumexp(0) - torch.stack(having).logsumexp(0)
    torch.testing.assert_close(output.loss, total / 6)
    torch.testing.assert_close(model(**batch, labels=labels_of(batch, gold), num_items_in_batch=12).loss, total / 12)


@pytest.mark.parametrize("scheme", ["auto", None])
def test_logits_by_enumeration(tiny_bert, wordpiece, batch, scheme):
    """The log-probability of the best sequence with each label, at every token of a word."""
    model = new_model(tiny_bert, wordpiece, span_scheme=scheme).eval()
    output = model(**batch)
    for row, text in enumerate(TEXTS):
        own = sequences(model, output.emissions[row, : len(text.split())], scheme)
        total = torch.stack(list(own.values())).logsumexp(0)
        best = max(own, key=own.get)
        for token, word in enumerate(batch.word_ids(row)):
            logits = output.logits[row, token]
            if word is None:
                assert not logits.any()
                continue
            assert logits.argmax() == best[word]
            for label in range(5):
                having = [score for tags, score in own.items() if tags[word] == label]
                expected = float(max(having) - total) if having else -torch.inf
                assert logits[label].item() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(model(**batch, decode=False).logits, model.train()(**batch).logits)


@given(st.sampled_from(["BIO", "IOB1", "BIOES"]), st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 100.0]))
@settings(max_examples=60, deadline=None)
def test_what_is_decoded_is_valid(kind, n, seed, scale):
    """Also where all sequences are alike (a scale of 0): the labels of highest logits are one valid sequence, the best."""
    names = {"BIO": "B I", "IOB1": "B I", "BIOES": "B I E S"}[kind].split()
    scheme = SpanScheme(["O", *(f"{letter}-{name}" for name in ("x", "y") for letter in names)], kind)
    generator = torch.Generator().manual_seed(seed)
    emissions = scale * torch.randn(3, n, len(scheme.labels), generator=generator).round()
    lengths = torch.tensor([n, 1, 0])
    chain, _ = scheme.decoder().chain(emissions, torch.arange(n) < lengths[:, None])
    logits = decoding(chain)
    found = logits.argmax(-1)
    assert not logits[lengths == 0].any()
    assert torch.equal(found[0], chain.argmax()[0])
    for row, length in enumerate(lengths.tolist()):
        allowed, own = scheme.constraints, found[row, :length].tolist()
        assert not own or (allowed.starts[own[0]] and allowed.ends[own[-1]])
        assert all(allowed.transitions[pair] for pair in itertools.pairwise(own))


def test_without_transitions_the_best_sequence_is_the_argmax(tiny_bert, wordpiece, batch):
    model = new_model(tiny_bert, wordpiece, span_scheme=None).eval()
    for scores in model.crf.parameters():
        torch.nn.init.zeros_(scores)
    output, plain = model(**batch), model(**batch, decode=False)
    assert torch.equal(output.logits.argmax(-1), plain.logits.argmax(-1))


def test_gradients(tiny_bert, wordpiece, batch):
    """All parameters get one, and it is that of the likelihood (double precision, by differences)."""
    model = new_model(tiny_bert, wordpiece)
    model(**batch, labels=labels_of(batch, [[0, 1, 2, 0], [3, 4, 0], [1]])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    weight = model.classifier.weight
    direction = torch.randn_like(weight)
    expected = (weight.grad * direction).sum().item()
    with torch.no_grad():
        losses = []
        for step in (1e-2, -1e-2):
            weight.add_(step * direction)
            losses.append(model(**batch, labels=labels_of(batch, [[0, 1, 2, 0], [3, 4, 0], [1]])).loss.item())
            weight.sub_(step * direction)
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(expected, rel=1e-2)


def test_labels_at_all_tokens_of_a_word_are_the_same(model, batch):
    gold = [[0, 1, 2, 0], [3, 4, 0], [1]]
    labels = labels_of(batch, gold)
    every = torch.tensor(
        [[-100 if word is None else gold[row][word] for word in batch.word_ids(row)] for row in range(len(TEXTS))]
    )
    first = model(**batch, labels=labels, num_items_in_batch=1).loss
    torch.testing.assert_close(model(**batch, labels=every, num_items_in_batch=1).loss, first)


def test_alone_in_a_batch_padded_on_either_side_and_with_given_words(model, wordpiece):
    left = wordpiece(TEXTS, padding=True, padding_side="left", return_tensors="pt")
    right = wordpiece(TEXTS, padding=True, return_tensors="pt")
    given = DataCollatorForLatentTrees(wordpiece)(
        [
            {key: value[row] for key, value in encode_words(wordpiece, [text.split() for text in TEXTS]).items()}
            for row in range(3)
        ]
    )
    for row, text in enumerate(TEXTS):
        alone = model(**wordpiece(text, return_tensors="pt")).logits[0]
        for inputs in (left, right, given):
            own = model(**inputs).logits[row][inputs["attention_mask"][row].bool()]
            torch.testing.assert_close(own, alone, rtol=0, atol=1e-4)
            assert torch.equal(own.argmax(-1), alone.argmax(-1))


def test_no_words(model, wordpiece):
    empty = wordpiece(["", ""], return_tensors="pt")
    assert model(**empty).logits.shape == (2, 2, 5)
    labels = torch.full_like(empty["input_ids"], -100)
    output = model.train()(**empty, labels=labels)
    assert output.loss == 0
    output.loss.backward()
    assert not any(parameter.grad.any() for parameter in model.crf.parameters())


def test_saved_loaded_and_made_by_the_auto_classes(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert type(loaded) is CRFForTokenClassification
    assert isinstance(AutoConfig.from_pretrained(tmp_path), CRFConfig)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert (tmp_path / "modeling_hf_latent.py").is_file()


def test_the_trainer_learns_and_evaluates(tiny_bert, wordpiece, tmp_path):
    """Words alternate, which no word says by itself: the transitions alone learn it."""
    model = new_model(tiny_bert, wordpiece)
    words = [["good"] * n for n in (2, 3, 4, 5)] * 8
    labels = [[(0, 1)[word % 2] for word in range(len(own))] for own in words]
    data = Dataset.from_dict(encode_words(wordpiece, words, labels=labels)).remove_columns("word_ids")
    right = []

    def measure(found):
        known = found.label_ids >= 0
        right.append((found.predictions.argmax(-1) == found.label_ids)[known].mean())
        return {"accuracy": right[-1]}

    arguments = TrainingArguments(
        tmp_path, num_train_epochs=20, learning_rate=0.03, report_to="none", disable_tqdm=True, per_device_train_batch_size=16
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForTokenClassification(wordpiece),
        compute_metrics=measure,
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1.0


def test_pipelines_tell_the_best_sequence(model, wordpiece):
    """transformers' own gives its labels; ours the same spans, with probabilities by the field that was learned."""
    for text in TEXTS:
        inputs = wordpiece(text, return_tensors="pt")
        output = model(**inputs)
        best = output.logits[0].argmax(-1)
        tagged = pipeline("token-classification", model=model, tokenizer=wordpiece)(text)
        ids = inputs.word_ids(0)
        expected = [NAMES[int(best[token])] for token, word in enumerate(ids) if word is not None and best[token] != 0]
        assert [own["entity"] for own in tagged] == expected
        own = sequences(model, output.emissions[0], "auto")
        chances = dict(zip(own, torch.stack(list(own.values())).softmax(0).tolist(), strict=True))
        tags = max(own, key=own.get)
        found = pipeline("span-tagging", model=model, tokenizer=wordpiece)
        assert isinstance(found, SpanTaggingPipeline)
        spans = model.scheme.spans(tags)
        entities = found(text)
        assert [own["entity_group"] for own in entities] == [span.type for span in spans]
        for entity, span in zip(entities, spans, strict=True):
            sure = sum(chance for tags, chance in chances.items() if span in model.scheme.spans(tags))
            assert entity["score"] == pytest.approx(sure, abs=1e-4)
        ((first, *_),) = [found(text, num_best=3)]
        assert first["score"] == pytest.approx(max(chances.values()), abs=1e-4)


def test_a_compiled_model_says_the_same(model, batch):
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    word_ids = model.words.find_words(batch["input_ids"], batch["attention_mask"])
    labels = labels_of(batch, [[0, 1, 2, 0], [3, 4, 0], [1]])
    torch.testing.assert_close(compiled(**batch, word_ids=word_ids).logits, model(**batch).logits)
    model.train()
    expected = model(**batch, labels=labels).loss
    torch.testing.assert_close(compiled(**batch, word_ids=word_ids, labels=labels).loss, expected)


def test_bad_input_is_named(tiny_bert, wordpiece, batch, model):
    def error(words, name=ValueError):
        with pytest.raises(name) as found:
            model(**batch, labels=labels_of(batch, words))
        return str(found.value)

    assert "word 2 of sentence 0 is 'I-y' after 'B-x'" in error([[0, 1, 4, 0], [3, 4, 0], [1]])
    assert "word 0 of sentence 2 is 'I-x' at the start" in error([[0, 1, 2, 0], [3, 4, 0], [2]])
    assert "labels[0, 1] is 5" in error([[5, 1, 2, 0], [3, 4, 0], [1]])
    assert "token 2 opens a word and has no label" in error([[0, -100, 2, 0], [3, 4, 0], [1]])
    assert "`span_scheme=None`" in error([[0, 1, 4, 0], [3, 4, 0], [1]])
    ends = CRFForTokenClassification.from_encoder(tiny_bert, wordpiece, id2label=dict(enumerate(ENDS)))
    ids = ends.words.find_words(batch["input_ids"], batch["attention_mask"])
    with pytest.raises(ValueError, match=r"those of labels\[0\] are of none, whatever the unknown ones are"):
        ends(**batch, word_ids=ids, labels=labels_of(batch, [[1, -100, 5, -100], [0, 0, 0], [4]]))
    with pytest.raises(ValueError, match="`span_scheme` must be 'auto', one of BIO, IOB1, BIOES, or None, got 'BILOU'"):
        CRFConfig(span_scheme="BILOU")
    with pytest.raises(ValueError, match=r"`id2label` must have labels that are 'O', or one of the letters"):
        CRFForTokenClassification.from_encoder(tiny_bert, wordpiece, id2label={0: "noun", 1: "verb"}, span_scheme="BIO")
    with pytest.raises(TypeError, match=r"Unknown option 'estimator'\. CRFConfig takes: "):
        CRFForTokenClassification.from_encoder(tiny_bert, wordpiece, estimator="spigot")


def test_labels_that_are_no_spans_may_follow_each_other_freely(tiny_bert, wordpiece, batch):
    model = CRFForTokenClassification.from_encoder(tiny_bert, wordpiece, id2label={0: "noun", 1: "verb"}).eval()
    assert model.scheme is None
    assert model(**batch).logits.isfinite().all()


def test_the_field_is_that_of_chain_scores(model, batch):
    output = model(**batch)
    inside = torch.arange(output.emissions.shape[1]) < output.num_words[:, None]
    chain, _ = model.crf.chain(output.emissions, inside)
    assert isinstance(chain, ChainScores)
    torch.testing.assert_close(chain.max_marginals().amax(-1)[:, 0], chain.score(chain.argmax()))


def test_its_card(model, wordpiece, tmp_path):
    facts = {"dataset": "someone/entities", "metrics": {"f1": 0.5}, "supervised": True}
    text = write_model_card(tmp_path, model, wordpiece, "someone/tagger", "a good film", **facts).read_text()
    for part in (
        "conditional-random-field",
        "| sequences | those that are valid in BIO |",
        "Lafferty",
        'pipeline("token-class',
    ):
        assert part in text, part
    assert "tree" not in text
    assert not (tmp_path / "tree.svg").exists()


def test_what_is_for_trees_says_so(model, wordpiece):
    with pytest.raises(ValueError, match="a CRFForTokenClassification has no trees to show"):
        parse(model, wordpiece, TEXTS)
    with pytest.raises(ValueError, match="'latent-tree-parsing' needs a latent-tree model, got a CRFForTokenClassification"):
        pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece)
    with pytest.raises(ValueError, match="hf_latent already"):
        CRFForTokenClassification.from_encoder(model, wordpiece)
