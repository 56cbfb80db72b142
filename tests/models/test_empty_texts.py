"""Texts without a token, where the tokenizer adds none: alone, in mixtures, in training."""

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel, Trainer, TrainingArguments, pipeline

from hf_latent import (
    BiLstmConfig,
    BiLstmModel,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
    TreeStatisticsCallback,
    parse,
)
from hf_latent.models.bilstm import word_tokenizer


@pytest.fixture(params=["bilstm", "bert"])
def bare(request):
    """Models whose tokenizer adds nothing to an empty text, and the tokenizer."""
    tokenizer = word_tokenizer(["a", "good", "film"])
    if request.param == "bilstm":
        encoder = BiLstmModel(BiLstmConfig(vocab_size=5, embedding_size=8, hidden_size=16, num_hidden_layers=2))
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
        encoder = BertModel(BertConfig(vocab_size=5, max_position_embeddings=40, **sizes))
    model = LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=2, estimator="marginals")
    return model, tokenizer


@pytest.mark.parametrize("texts", [[""], ["", ""], ["", "a good film"], ["a", "", "good film", ""]])
def test_empty_texts_in_any_mixture(bare, texts):
    model, tokenizer = bare
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    output = model.train()(**inputs, labels=torch.zeros(len(texts), dtype=torch.long))
    output.loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
    alone = torch.cat([model.eval()(**tokenizer([text], return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(model(**inputs).logits, alone, rtol=0, atol=1e-5)
    assert [tree.words for tree in parse(model, tokenizer, texts)] == [tuple(text.split()) for text in texts]
    assert len(pipeline("text-classification", model=model, tokenizer=tokenizer)(texts, batch_size=2)) == len(texts)


@pytest.mark.parametrize("estimator", ["marginals", "spigot", "score_function"])
def test_tags_of_texts_without_a_token(bare, estimator):
    """Their loss is exactly 0, and so are the gradients."""
    encoder, tokenizer = bare[0].base_model.encoder, bare[1]
    model = LatentTreeForTokenClassification.from_encoder(encoder, tokenizer, num_labels=2, estimator=estimator).train()
    inputs = tokenizer(["", ""], padding=True, return_tensors="pt")
    output = model(**inputs, labels=torch.zeros(inputs["input_ids"].shape, dtype=torch.long))
    output.loss.backward()
    assert output.loss == 0
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in model.parameters())


def test_empty_texts_in_the_trainer(bare, tmp_path):
    model, tokenizer = bare
    data = Dataset.from_dict({**tokenizer(["", "a good film", ""]), "labels": [0, 1, 0]})
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=1, num_train_epochs=1, eval_strategy="epoch", report_to="none", use_cpu=True
    )
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    trainer.add_callback(TreeStatisticsCallback(trainer, ["a good film"] * 32 + [""]))
    trainer.train()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_bilstm_alone_takes_texts_without_a_token():
    encoder = BiLstmModel(BiLstmConfig(vocab_size=5, embedding_size=8, hidden_size=16))
    for shape in ((2, 0), (0, 3)):
        assert encoder(torch.zeros(shape).long()).last_hidden_state.shape == (*shape, 16)
