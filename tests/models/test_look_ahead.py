"""The vector of a word is that of a token that has seen the whole word."""

import json

import pytest
import torch
from test_encoders import ENCODERS, name_of
from transformers import AutoModel, BertConfig, LlamaConfig, T5Config, T5EncoderModel

from hf_latent import LatentTreeConfig, LatentTreeForSequenceClassification, LatentTreeModel
from hf_latent.models.words import modeling_words
from hf_latent.models.words.look_ahead import looks_ahead

CAUSAL = {"gpt2", "llama"}
LLAMA = next(config for config in ENCODERS if config.model_type == "llama")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", ENCODERS, ids=name_of)
def test_which_encoders_look_ahead(config, dtype):
    encoder = AutoModel.from_config(config).to(dtype).train()
    encoder.get_input_embeddings().eval()
    state = torch.get_rng_state()
    assert looks_ahead(encoder) == (config.model_type not in CAUSAL)
    assert torch.equal(torch.get_rng_state(), state)
    assert encoder.training
    assert not encoder.get_input_embeddings().training


def test_not_the_name_decides():
    """A BERT as a decoder does not look ahead; special tokens may be lists, and may be all that there are."""
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    assert not looks_ahead(AutoModel.from_config(BertConfig(**sizes, is_decoder=True)))
    assert not looks_ahead(AutoModel.from_config(LlamaConfig(**sizes, bos_token_id=0, eos_token_id=[1, 2])))
    assert looks_ahead(AutoModel.from_config(BertConfig(**{**sizes, "vocab_size": 2}, pad_token_id=0, bos_token_id=1)))
    assert looks_ahead(T5EncoderModel(T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)))


@pytest.mark.parametrize("config", ENCODERS, ids=name_of)
def test_the_choice_is_kept_with_the_model(config, wordpiece, tmp_path, monkeypatch):
    expected = "last" if config.model_type in CAUSAL else "first"
    model = LatentTreeForSequenceClassification.from_encoder(AutoModel.from_config(config), wordpiece, num_labels=2)
    assert model.config.word_pooling == expected
    assert LatentTreeModel(LatentTreeConfig(text_config=config)).config.word_pooling == expected
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(modeling_words, "looks_ahead", lambda encoder: pytest.fail("tried once more"))
    assert json.loads((tmp_path / "config.json").read_text())["word_pooling"] == expected
    assert LatentTreeForSequenceClassification.from_pretrained(tmp_path).config.word_pooling == expected
    for given in ("first", "last", "mean"):
        chosen = LatentTreeModel.from_encoder(model.latent_tree.encoder, wordpiece, word_pooling=given)
        assert chosen.config.word_pooling == given


def test_models_that_were_saved_before_keep_what_they_had(wordpiece, tmp_path):
    model = LatentTreeModel.from_encoder(AutoModel.from_config(LLAMA), wordpiece, word_pooling="first")
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for changes in ({"format_version": 1}, {"format_version": 1, "word_pooling": None}):
        (tmp_path / "config.json").write_text(json.dumps(saved | changes))
        assert LatentTreeModel.from_pretrained(tmp_path).config.word_pooling == "first"


@pytest.mark.parametrize("config", ENCODERS, ids=name_of)
def test_all_of_a_word_counts(config, wordpiece):
    """With the first piece of a causal encoder, what comes after it in the last word was not seen at all."""
    encoder = AutoModel.from_config(config)
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2, estimator="marginals").eval()
    ids = torch.tensor([[12, 9, 10, 11], [12, 9, 10, 10]])  # not un ##watch ##able
    one, other = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert (one - other).abs().max() > 1e-6
