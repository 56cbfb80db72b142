"""Models whose parser, or decoder, sees kinds of tokens in place of the tokens."""

import pytest
import torch

from hf_latent import LatentTreeModel

TEXTS = ["a good film", "not a very unwatchable film , bad .", "good", ""]


def encode(tokenizer, texts=TEXTS):
    return tokenizer(texts, padding=True, return_tensors="pt")


def test_kinds_in_place_of_tokens(tiny_bert, wordpiece, tmp_path):
    """Words of a kind look alike to the parser, or to the decoder."""
    kinds = [1] * len(wordpiece)
    kinds[wordpiece.convert_tokens_to_ids("good")] = kinds[wordpiece.convert_tokens_to_ids("bad")] = 0
    good, bad, film = (encode(wordpiece, [text]) for text in ("a good film", "a bad film", "a very film"))

    def new(**options):
        torch.manual_seed(0)
        return LatentTreeModel.from_encoder(tiny_bert, wordpiece, **options).eval()

    parser = new(parser_input=kinds, decoder_input="embeddings")
    assert torch.equal(parser(**good).arc_scores, parser(**bad).arc_scores)
    assert not torch.allclose(parser(**good).arc_scores, parser(**film).arc_scores)
    assert not torch.allclose(parser(**good).last_hidden_state, parser(**bad).last_hidden_state)
    decoder = new(decoder_input=kinds, decoder_size=7, argmax_at_evaluation=True)
    assert decoder(**good).last_hidden_state.shape[2] == 14
    assert not torch.allclose(decoder(**good).arc_scores, decoder(**bad).arc_scores)
    assert torch.equal(decoder(**good).last_hidden_state[:, :, :7], decoder(**bad).last_hidden_state[:, :, :7])
    parser.save_pretrained(tmp_path)
    loaded = LatentTreeModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**good).last_hidden_state, parser(**good).last_hidden_state)


@pytest.mark.parametrize("decoder_input", ["encoder", "embeddings", "kinds"])
def test_every_parameter_that_is_trained_gets_a_gradient(tiny_bert, wordpiece, decoder_input):
    """What has none stands still: training on many devices would wait for it."""
    kinds = [place % 5 for place in range(len(wordpiece))]
    model = LatentTreeModel.from_encoder(
        tiny_bert, wordpiece, parser_input=kinds, decoder_input=kinds if decoder_input == "kinds" else decoder_input
    ).train()
    model(**encode(wordpiece)).last_hidden_state.square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None}
    assert not {name for name in without if "pooler" not in name}
    words = model.get_input_embeddings().weight
    assert words.requires_grad == (decoder_input == "embeddings")


def test_what_kinds_need(tiny_bert, wordpiece):
    with pytest.raises(ValueError, match="`parser_input` must have a kind for each of the"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, parser_input=[0, 1])
    with pytest.raises(ValueError, match="`parser_input` must be 'encoder' or a list"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, parser_input="embeddings")
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, parser_input=[0] * len(wordpiece))
    inputs = encode(wordpiece)
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
    with pytest.raises(ValueError, match="needs `input_ids` to tell them"):
        model(inputs_embeds=embeddings, word_ids=torch.zeros(embeddings.shape[:2], dtype=torch.long), **inputs)
    with pytest.raises(ValueError, match="new tokens have none"):
        model.resize_token_embeddings(len(wordpiece) + 1)
