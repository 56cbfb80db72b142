"""Which models of transformers a latent tree can be put on."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hf_latent import LatentTreeForSequenceClassification, LatentTreeModel

TEXTS = ["a good film", "not a very unwatchable film , bad .", "good", ""]


@pytest.fixture
def model(tiny_bert, wordpiece):
    return LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=3, dropout=0.1)


@pytest.mark.parametrize("name", ["T5Model", "T5EncoderModel"])
def test_of_an_encoder_decoder_the_encoder_is_taken_and_comes_back(name, wordpiece, tmp_path):
    import transformers

    config = transformers.T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    encoder = getattr(transformers, name)(config)
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2).eval()
    batch = {
        name: value
        for name, value in wordpiece(TEXTS[:3], padding=True, return_tensors="pt").items()
        if name != "token_type_ids"
    }
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    loaded = LatentTreeForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch).logits, expected)
    own = dict(encoder.named_parameters())["shared.weight"]
    assert torch.equal(model.get_input_embeddings().weight, own)


def test_an_encoder_of_the_users_own_class_stays_what_it_is(tiny_bert, wordpiece):
    class Deaf(type(tiny_bert)):
        def forward(self, input_ids=None, **kwargs):
            return super().forward(input_ids=torch.full_like(input_ids, 5), **kwargs)

    encoder = Deaf(tiny_bert.config)
    model = LatentTreeModel.from_encoder(encoder, wordpiece, estimator=None).eval()
    assert model.encoder is encoder
    one, other = (model(**wordpiece([text], return_tensors="pt")).last_hidden_state for text in ("good film", "bad film"))
    assert torch.equal(one, other)


def test_encoders_that_do_not_serve(wordpiece, model):
    from transformers import BartConfig, BartModel

    config = BartConfig(vocab_size=16, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16)
    config.encoder_attention_heads = config.decoder_attention_heads = 2
    with pytest.raises(ValueError, match="'bart' is an encoder-decoder"):
        LatentTreeModel.from_encoder(BartModel(config), wordpiece)
    with pytest.raises(ValueError, match="load it with `from_pretrained`"):
        LatentTreeModel.from_encoder(model, wordpiece)
    with pytest.raises(ValueError, match="`word_pooling` must be one of first, last, mean, got 'middle'"):
        LatentTreeModel.from_encoder(model.base_model.encoder, wordpiece, word_pooling="middle")


def test_from_encoder_takes_a_folder_and_a_fine_tuned_model(tiny_bert, wordpiece, tmp_path):
    tiny_bert.save_pretrained(tmp_path)
    wordpiece.save_pretrained(tmp_path)
    from_folder = LatentTreeModel.from_encoder(str(tmp_path), estimator="marginals").eval()
    from_model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="marginals")
    for one, other in zip(from_folder.encoder.parameters(), from_model.encoder.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(from_folder.token_kinds, from_model.token_kinds)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert LatentTreeModel.from_encoder(classifier, wordpiece).encoder is classifier.base_model
