"""Classification by a few words: what is seen of the others, every estimator, the Trainer, the pipeline, saving, cards."""

import json

import pytest
import torch
from conftest import TREE_ESTIMATORS
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_latent import (
    LatentSelectionConfig,
    LatentSelectionForSequenceClassification,
    Rationale,
    Subset,
    WordSelectionPipeline,
    parse,
)
from hf_latent.model_cards import write_model_card

TEXTS = ["a good unwatchable film", "not bad .", "film", "a very very good , good film ."]
INPUTS = ("encoder", "embeddings")


def new_model(tiny_bert, wordpiece, **options) -> LatentSelectionForSequenceClassification:
    torch.manual_seed(0)
    model = LatentSelectionForSequenceClassification.from_encoder(tiny_bert, wordpiece, **{"num_labels": 2, **options})
    torch.nn.init.normal_(model.scorer.weight)
    return model.eval()


@pytest.fixture
def batch(wordpiece):
    return wordpiece(TEXTS, padding=True, return_tensors="pt")


@pytest.mark.parametrize("decoder_input", INPUTS)
def test_words_that_are_not_chosen_are_not_seen(tiny_bert, wordpiece, batch, decoder_input):
    """With the choice as it is, any others may stand in their places; no chosen one may."""
    model = new_model(tiny_bert, wordpiece, decoder_input=decoder_input, at_least=0.4)
    output = model(**batch)
    seen = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    word_ids = model.words.find_words(batch["input_ids"], batch["attention_mask"])
    for row, own in enumerate(word_ids.tolist()):
        for token, word in enumerate(own):
            seen[row, token] = word < 0 or bool(output.chosen[row, word])
    good = wordpiece.convert_tokens_to_ids("good")
    others = {**batch, "input_ids": batch["input_ids"].where(seen, good)}
    torch.testing.assert_close(
        model(**others, word_ids=word_ids, chosen=output.chosen).logits, output.logits, rtol=0, atol=1e-6
    )
    special = word_ids < 0
    others = {**batch, "input_ids": batch["input_ids"].where(~seen | special, wordpiece.convert_tokens_to_ids("bad"))}
    changed = model(**others, word_ids=word_ids, chosen=output.chosen).logits
    assert ((changed - output.logits).abs().amax(1) > 1e-5).all()


@pytest.mark.parametrize(
    ("share", "at_least", "at_most"), [(True, 0.2, None), (True, 0.1, 0.5), (False, 1, None), (False, 0, 2)]
)
def test_the_best_subset_is_chosen(tiny_bert, wordpiece, batch, share, at_least, at_most):
    model = new_model(tiny_bert, wordpiece, share=share, at_least=at_least, at_most=at_most)
    output = model(**batch)
    expected = Subset(at_least, at_least if at_most is None else at_most, share).argmax(output.scores, output.num_words)
    assert torch.equal(output.chosen, expected)
    assert output.num_words.tolist() == [4, 3, 1, 8]


@pytest.mark.parametrize("decoder_input", INPUTS)
@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_every_estimator_teaches_the_choice(tiny_bert, wordpiece, batch, estimator, decoder_input):
    options = {"step_size": 1.0} if estimator in ("spigot", "spigot_ce", "spigot_eg") else None
    model = new_model(
        tiny_bert, wordpiece, estimator=estimator, estimator_options=options, decoder_input=decoder_input, at_least=0.5
    ).train()
    with torch.no_grad():
        for weight in (model.decoder[0].weight, model.classifier.weight):  # a loss that depends on what is seen
            weight.mul_(30 if decoder_input == "embeddings" else 5)
    learned = 0.0
    for _ in range(5):
        model.zero_grad()
        output = model(**batch, labels=torch.tensor([0, 1, 0, 1]))
        output.loss.backward()
        learned += float(model.scorer.weight.grad.norm())
        assert all(own.grad is not None and own.grad.isfinite().all() for own in model.scorer.parameters())
        assert all(own.grad is not None for own in model.decoder.parameters())
    assert learned > 0
    seen = model.eval()(**batch).chosen
    assert torch.equal(seen, seen.round()), "whole words are seen, also where training relaxes the choice"


@pytest.mark.parametrize("estimator", ["marginals", "perturb_and_map", "spigot_ce", "sparsemap"])
def test_neighbours_are_chosen_together(tiny_bert, wordpiece, batch, estimator):
    """The larger their score, the fewer stretches; and every estimator's gradient comes through."""
    stretches = []
    for score in (-20.0, 0.0, 20.0):
        model = new_model(tiny_bert, wordpiece, estimator=estimator, neighbour_score=score, at_least=3, share=False)
        seen = model(**wordpiece(["a very bad , not good film ."] * 2, return_tensors="pt")).chosen
        assert seen.shape == (2, 8)
        assert seen.sum(1).tolist() == [3, 3]
        before = torch.nn.functional.pad(seen[:, :-1], (1, 0))
        stretches.append(int((seen * (1 - before)).sum()))
        model = new_model(tiny_bert, wordpiece, estimator=estimator, neighbour_score=score, at_least=0.5).train()
        model(**batch, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        assert model.scorer.weight.grad.isfinite().all()
    assert stretches[0] == 6
    assert stretches[2] == 2
    with pytest.raises(ValueError, match="`neighbour_score` must be a finite number, got inf"):
        LatentSelectionConfig(neighbour_score=float("inf"))


def test_relaxed_words_if_asked_for(tiny_bert, wordpiece, batch):
    model = new_model(tiny_bert, wordpiece, estimator="marginals", argmax_at_evaluation=False, at_least=0.5)
    seen = model(**batch).chosen
    assert ((seen > 0) & (seen < 1)).any()
    torch.testing.assert_close(seen.sum(1), torch.tensor([2.0, 2.0, 1.0, 4.0]))


@pytest.mark.parametrize("decoder_input", INPUTS)
def test_without_a_choice_all_is_seen(tiny_bert, wordpiece, batch, decoder_input):
    torch.manual_seed(0)
    model = LatentSelectionForSequenceClassification.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator=None, decoder_input=decoder_input
    ).eval()
    output = model(**batch)
    assert output.scores is None
    assert output.chosen.sum(1).tolist() == [4, 3, 1, 8]
    whole = model(**batch, chosen=torch.ones_like(output.chosen)).logits
    torch.testing.assert_close(output.logits, whole)


def test_a_row_alone_and_in_a_batch(tiny_bert, wordpiece, batch):
    model = new_model(tiny_bert, wordpiece)
    together = model(**batch)
    for row, text in enumerate(TEXTS):
        alone = model(**wordpiece(text, return_tensors="pt"))
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=0, atol=1e-5)
        assert torch.equal(alone.chosen[0], together.chosen[row, : alone.chosen.shape[1]])


def test_empty_texts(tiny_bert, wordpiece):
    model = new_model(tiny_bert, wordpiece).train()
    for texts in (["", "a film"], [""], ["", ""]):
        batch = wordpiece(texts, padding=True, return_tensors="pt")
        output = model(**batch, labels=torch.zeros(len(texts), dtype=torch.long))
        output.loss.backward()
        assert output.loss.isfinite()
        assert all(own.grad is None or own.grad.isfinite().all() for own in model.parameters())


@pytest.mark.parametrize("decoder_input", INPUTS)
@pytest.mark.parametrize("estimator", [None, "marginals", "spigot_ce", "score_function"])
def test_every_parameter_gets_a_gradient(tiny_bert, wordpiece, batch, estimator, decoder_input):
    """Whatever is known, of whatever words: training on many devices waits for all."""
    model = LatentSelectionForSequenceClassification.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator=estimator, decoder_input=decoder_input
    ).train()
    nothing = wordpiece(["", ""], padding=True, return_tensors="pt")
    for inputs, labels in ((batch, [0, 1, 0, 1]), (batch, [-100] * 4), (nothing, [0, 1])):
        for chosen in (None, torch.ones(len(labels), 8)):
            model.zero_grad()
            loss = model(**inputs, labels=torch.tensor(labels), chosen=chosen).loss
            loss.backward()
            assert [name for name, own in model.named_parameters() if own.grad is None] == []
            assert all(own.grad.isfinite().all() for own in model.parameters())


def test_errors(tiny_bert, wordpiece, batch):
    with pytest.raises(ValueError, match="`at_least` must be a share between 0 and 1, got 3"):
        LatentSelectionConfig(at_least=3)
    with pytest.raises(ValueError, match=r"`at_most` must not be below `at_least`, got 0\.2 and 0\.5"):
        LatentSelectionConfig(at_least=0.5, at_most=0.2)
    with pytest.raises(ValueError, match="`decoder_input` must be 'encoder' or 'embeddings', got 'words'"):
        LatentSelectionConfig(decoder_input="words")
    with pytest.raises(TypeError, match=r"Unknown option 'k'.*at_least"):
        LatentSelectionForSequenceClassification.from_encoder(tiny_bert, wordpiece, k=2)
    model = new_model(tiny_bert, wordpiece, share=False, at_least=2)
    with pytest.raises(ValueError, match=r"lengths\[2\] is 1.*a share"):
        model(**batch)
    with pytest.raises(ValueError, match=r"`chosen` must have shape \(4, 8\).*got a float32 tensor of shape \(4, 3\)"):
        model(**batch, chosen=torch.ones(4, 3))
    with pytest.raises(ValueError, match="`labels` must lie between 0 and 1"):
        new_model(tiny_bert, wordpiece)(**batch, labels=torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="has no trees to show"):
        parse(model, wordpiece, TEXTS)
    with pytest.raises(ValueError, match="needs a latent-tree model, got a LatentSelection"):
        pipeline("latent-tree-parsing", model=model, tokenizer=wordpiece)
    with pytest.raises(ValueError, match="needs a LatentSelectionForSequenceClassification, got a BertForSeq"):
        pipeline("word-selection", model=BertForSequenceClassification(tiny_bert.config), tokenizer=wordpiece)
    whole = LatentSelectionForSequenceClassification.from_encoder(tiny_bert, wordpiece, estimator=None)
    with pytest.raises(ValueError, match="sees all words"):
        pipeline("word-selection", model=whole, tokenizer=wordpiece)


def test_a_loss_of_ones_own_that_forgets_the_choice(tiny_bert, wordpiece, batch):
    model = new_model(tiny_bert, wordpiece, estimator="spigot_ce", estimator_options={"step_size": 1.0}).train()
    labels = torch.tensor([0, 1, 0, 1])
    model(**batch, labels=labels).logits.sum().backward()
    with pytest.warns(UserWarning, match=r"which learned nothing.*add `output\.latent_loss\.mean"):
        model(**batch, labels=labels)


def test_learned_by_the_trainer_and_shown_by_the_pipeline(tiny_bert, wordpiece, tmp_path):
    """The label is that of a single word, which the choice finds from labels alone; of one label, that it is not the other.

    (The scores know no context here. With context, any word can be chosen to mean a label.)
    """
    torch.manual_seed(0)
    context_free = BertModel(BertConfig(**{**tiny_bert.config.to_dict(), "num_hidden_layers": 0}))
    words = ["a", "film", "very", "not", ","]
    generator = torch.Generator().manual_seed(0)
    texts, labels = [], []
    for place in range(64):
        own = [words[int(torch.randint(5, (), generator=generator))] for _ in range(5)]
        own[int(torch.randint(5, (), generator=generator))] = ("bad", "good")[place % 2]
        texts.append(" ".join(own))
        labels.append(place % 2)
    data = Dataset.from_dict({**wordpiece(texts), "labels": labels})
    model = LatentSelectionForSequenceClassification.from_encoder(
        context_free,
        wordpiece,
        id2label={0: "awful", 1: "fine"},
        estimator="ste_marginals",
        decoder_input="embeddings",
        at_least=1,
        share=False,
    )
    trainer = Trainer(
        model,
        TrainingArguments(
            tmp_path / "trainer",
            num_train_epochs=12,
            learning_rate=1e-2,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(wordpiece),
        compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(-1) == found.label_ids).mean()},
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1.0
    model.save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "model"), LatentSelectionConfig)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert isinstance(loaded, LatentSelectionForSequenceClassification)
    selector = pipeline("word-selection", model=str(tmp_path / "model"), device="cpu")
    assert isinstance(selector, WordSelectionPipeline)
    found = selector(texts, batch_size=3)
    for one, text, label in zip(found, texts, labels, strict=True):
        assert one["label"] == ("awful", "fine")[label]
        assert one["score"] > 0.5
        ((begin, end),) = one["offsets"]
        assert (text[begin:end], one["text"]) == (one["words"][0], text)
        assert one["rationale"].to_text("<", ">") == f"{text[:begin]}<{one['words'][0]}>{text[end:]}"
        json.dumps(one)
    words = {label: {one["words"][0] for one, own in zip(found, labels, strict=True) if own == label} for label in (0, 1)}
    assert not words[0] & words[1]
    assert {"bad"} == words[0] or {"good"} == words[1]
    with pytest.raises(KeyError):
        found[0]["tree"]
    (given,) = selector([["very", "good", "film"]])
    ((begin, end),) = given["offsets"]
    assert (given["text"], given["words"]) == ("very good film", ["very good film"[begin:end]])
    assert pipeline("text-classification", model=loaded, tokenizer=wordpiece)("a good film")[0]["label"] == "fine"


@pytest.mark.parametrize(
    ("options", "label", "kind"),
    [
        ({"num_labels": 1}, "LABEL_0", float),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, list, list),
        ({"num_labels": 3, "problem_type": "regression"}, ["LABEL_0", "LABEL_1", "LABEL_2"], list),
    ],
)
def test_other_problems_than_one_label(tiny_bert, wordpiece, options, label, kind):
    problem_type = options.pop("problem_type", None)
    model = new_model(tiny_bert, wordpiece, **options)
    model.config.problem_type = problem_type
    found = pipeline("word-selection", model=model, tokenizer=wordpiece, device="cpu")("a good film")
    assert isinstance(found["score"], kind)
    assert found["label"] == label if not isinstance(label, type) else isinstance(found["label"], label)
    json.dumps(found)


def test_the_rationale_is_shown():
    rationale = Rationale("a <fun>\nfilm \x1b[31m", ((2, 7), (8, 12)), (1.0, 0.25))
    assert rationale.to_text() == "a \x1b[1;4m<fun>\x1b[0m\n\x1b[1;4mfilm\x1b[0m \N{REPLACEMENT CHARACTER}[31m"
    html = rationale.to_html()
    assert html == rationale._repr_html_()
    assert "&lt;fun&gt;</mark>" in html
    assert "0.25)" in html
    assert Rationale("", (), ()).to_html() == "<p></p>"
    with pytest.raises(ValueError, match="`spans` must lie in the text of 3 characters"):
        Rationale("abc", ((1, 4),), (1.0,))
    with pytest.raises(ValueError, match="one after another"):
        Rationale("abc", ((1, 3), (2, 3)), (1.0, 1.0))
    with pytest.raises(ValueError, match="`weights` must be one for each of the 1 spans, got 0"):
        Rationale("abc", ((1, 2),), ())


def test_a_card_shows_the_words(tiny_bert, wordpiece, tmp_path):
    model = new_model(tiny_bert, wordpiece, estimator="imle")
    path = write_model_card(tmp_path, model, wordpiece, "someone/reasons", "a good <film>", metrics={"accuracy": 0.9})
    text = path.read_text(encoding="utf-8")
    for part in (
        "</mark>",
        "&lt;",
        'pipeline("word-selection"',
        "| gradient estimator | `imle` |",
        "0.2 of the words of a text",
    ):
        assert part in text, part
    assert not (tmp_path / "tree.svg").exists()
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")
    whole = LatentSelectionForSequenceClassification.from_encoder(tiny_bert, wordpiece, estimator=None)
    path = write_model_card(tmp_path, whole, wordpiece, "someone/baseline", "a good film")
    text = path.read_text(encoding="utf-8")
    assert "the baseline that sees all words" in text
    assert 'pipeline("text-classification"' in text
    assert "word-selection" not in text
