"""A label for each token, through a latent tree."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForTokenClassification
from hf_latent.layers import pool_words
from hf_latent.models.bilstm import word_tokenizer

WORDS = ["red", "green", "sea", "sky"]
SENTENCES = [["red", "sea"], ["green", "sky", "sea"], ["sky", "red", "sea", "green"], ["sea"]]


def word_model(**options) -> tuple:
    tokenizer = word_tokenizer(WORDS)
    encoder = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=12, hidden_size=16))
    return LatentTreeForTokenClassification.from_encoder(encoder, tokenizer, num_labels=2, **options), tokenizer


def encoded(tokenizer) -> dict[str, list]:
    """The label of a word is whether it is a colour."""
    found = tokenizer([" ".join(words) for words in SENTENCES])
    rows = [found.word_ids(row) for row in range(len(SENTENCES))]
    labels = [
        [-100 if word is None else int(SENTENCES[row][word] in WORDS[:2]) for word in places] for row, places in enumerate(rows)
    ]
    return {**found, "labels": labels}


def test_all_tokens_of_a_word_have_its_logits(tiny_bert, wordpiece):
    model = LatentTreeForTokenClassification.from_encoder(tiny_bert, wordpiece, num_labels=3).eval()
    inputs = wordpiece(["a unwatchable film", "good"], padding=True, return_tensors="pt")
    logits = model(**inputs).logits
    words = inputs.word_ids(0)
    assert logits.shape == (*inputs["input_ids"].shape, 3)
    places = [place for place, word in enumerate(words) if word == 1]
    assert len(places) == 3
    assert all(torch.equal(logits[0, places[0]], logits[0, place]) for place in places)
    assert not logits[0, [place for place, word in enumerate(words) if word is None]].any()


def test_the_loss_is_the_mean_over_tokens():
    model, tokenizer = word_model(estimator="marginals")
    data = encoded(tokenizer)
    batch = DataCollatorForTokenClassification(tokenizer)([{k: v[row] for k, v in data.items()} for row in range(4)])
    output = model(**batch)
    expected = cross_entropy(output.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)
    # Of a batch that is part of a larger one, the Trainer tells how many tokens there are in all.
    torch.testing.assert_close(model(**batch, num_items_in_batch=40).loss, expected * int((batch["labels"] >= 0).sum()) / 40)


def test_the_surrogate_gradient_is_that_of_the_sum_over_tokens():
    """STE-Identity: η times the gradient of each sentence's own loss, of which the mean over all tokens is taken."""
    model, tokenizer = word_model(estimator="ste_identity", estimator_options={"step_size": 0.5})
    data = encoded(tokenizer)
    batch = DataCollatorForTokenClassification(tokenizer)([{k: v[row] for k, v in data.items()} for row in range(4)])
    output = model(**batch)
    output.arc_scores.retain_grad()
    output.loss.backward()
    base = model.latent_tree
    word_ids = base.find_words(batch["input_ids"], batch["attention_mask"])
    words, num_words = pool_words(base.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state, word_ids)
    arcs = output.arcs.detach().clone().requires_grad_()
    logits = model.logits(base.head_averaging(words, arcs), num_words, word_ids)
    total = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100, reduction="sum")
    (gamma,) = torch.autograd.grad(total, arcs)
    mask = base.tree.structure.mask(arcs, num_words)
    expected = (0.5 * gamma / int((batch["labels"] >= 0).sum())).masked_fill(~mask, 0.0)
    torch.testing.assert_close(output.arc_scores.grad, expected)


def test_trained_with_the_stock_trainer_and_served_in_the_stock_pipeline(tmp_path):
    model, tokenizer = word_model(estimator="spigot_eg")
    arguments = TrainingArguments(
        output_dir=tmp_path,
        num_train_epochs=60,
        learning_rate=1e-2,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        eval_strategy="epoch",
    )
    data = Dataset.from_dict(encoded(tokenizer))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, LatentTreeForTokenClassification)
    serve = pipeline("token-classification", model=str(tmp_path / "saved"), device="cpu")
    assert [(one["word"], one["entity"]) for one in serve("sea red sky")] == [
        ("sea", "LABEL_0"),
        ("red", "LABEL_1"),
        ("sky", "LABEL_0"),
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(4, dtype=torch.long), r"class numbers of shape \(4, 4\).*A label for each token"),
        (torch.full((4, 4), 2), r"between 0 and 1 .*labels\[0, 0\] is 2"),
        (torch.zeros(4, 4), "class numbers of shape"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    model, tokenizer = word_model(estimator=None)
    inputs = tokenizer([" ".join(words) for words in SENTENCES], padding=True, return_tensors="pt")
    with pytest.raises(ValueError, match=message):
        model(**inputs, labels=labels)
