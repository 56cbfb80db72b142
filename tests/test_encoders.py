"""A text has the same logits with whatever encoder, however it is asked for, alone or in a batch, padded on either side."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DataCollatorWithPadding,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    Trainer,
    TrainingArguments,
    XLNetConfig,
    pipeline,
)

from hf_latent import BiLstmConfig, LatentTreeForSequenceClassification

SIZES = {"vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
LONGEST = {"max_position_embeddings": 40}
ENCODERS = [
    BertConfig(**SIZES, **LONGEST),
    RobertaConfig(**SIZES, **LONGEST, pad_token_id=0),
    ElectraConfig(**SIZES, **LONGEST, embedding_size=24),
    AlbertConfig(**SIZES, **LONGEST, embedding_size=24),
    DistilBertConfig(vocab_size=16, dim=32, n_layers=2, n_heads=4, hidden_dim=37, **LONGEST),
    DebertaV2Config(**SIZES, **LONGEST),
    DebertaV2Config(**SIZES, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"]),
    ModernBertConfig(**SIZES, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3),
    XLNetConfig(vocab_size=16, d_model=32, n_layer=2, n_head=4, d_inner=37),
    GPT2Config(vocab_size=16, n_embd=32, n_layer=2, n_head=4, n_positions=40, bos_token_id=2, eos_token_id=3),
    LlamaConfig(**SIZES, bos_token_id=2, eos_token_id=3),
    BiLstmConfig(vocab_size=16, embedding_size=24, hidden_size=32, num_hidden_layers=2),
]
TEXTS = ["a very good film .", "not unwatchable", "bad", "a good , very good unwatchable film ."]


def name_of(config: PreTrainedConfig) -> str:
    return config.model_type + ("-relative" if getattr(config, "relative_attention", False) else "")


@pytest.fixture(params=ENCODERS, ids=name_of)
def model(request, wordpiece):
    encoder = AutoModel.from_config(request.param)
    return LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2, estimator="marginals").eval()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_same_however_it_is_asked_for(model, wordpiece, tmp_path, side, monkeypatch):
    monkeypatch.setattr(wordpiece, "padding_side", side)
    with torch.no_grad():
        alone = torch.cat([model(**wordpiece(text, return_tensors="pt")).logits for text in TEXTS])
        batch = model(**wordpiece(TEXTS, padding=True, return_tensors="pt")).logits
    serve = pipeline(
        "text-classification", model=model, tokenizer=wordpiece, top_k=None, function_to_apply="none", device="cpu"
    )
    served = [
        [score for _, score in sorted((one["label"], one["score"]) for one in row)]
        for row in [*serve(TEXTS, batch_size=4), *serve(TEXTS, batch_size=1)]
    ]
    arguments = TrainingArguments(tmp_path, report_to="none", use_cpu=True, per_device_eval_batch_size=3)
    trainer = Trainer(model, arguments, data_collator=DataCollatorWithPadding(wordpiece))
    predicted = trainer.predict(Dataset.from_dict({**wordpiece(TEXTS)})).predictions
    for found in (batch, torch.tensor(served[:4]), torch.tensor(served[4:]), torch.from_numpy(predicted)):
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


def test_a_text_that_is_too_long_says_so(model, wordpiece):
    inputs = wordpiece("good " * 50, return_tensors="pt")
    if getattr(model.config.text_config, "max_position_embeddings", 0) == 40:
        with pytest.raises(ValueError, match=r"has 52 tokens, and the encoder has positions for \d\d.*max_length="):
            model(**inputs)
    else:
        assert model(**inputs).logits.isfinite().all()
