"""Encoders in half precision, and quantized ones, under a parser that keeps its own."""

import pytest
import torch
from test_training import TEXTS, trainer_of, with_lora
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel, OPTConfig, OPTModel

from hf_latent import LatentTreeForSequenceClassification


@pytest.fixture
def encoder_folder(wordpiece, tmp_path):
    """An encoder of sizes that can be quantized."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(wordpiece), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    wordpiece.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def outside_the_encoder(model) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if "encoder." not in name}


@pytest.mark.parametrize("estimator", [None, "spigot", "marginals"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_encoder_in_half_precision(encoder_folder, wordpiece, tmp_path, estimator, dtype):
    encoder = AutoModel.from_pretrained(encoder_folder, dtype=dtype)
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2, estimator=estimator)
    batch = wordpiece(TEXTS[:4], padding=True, return_tensors="pt")
    output = model.train()(**batch, labels=torch.tensor([1, 0, 0, 1]))
    output.loss.backward()
    assert all(parameter.dtype == torch.float32 for parameter in outside_the_encoder(model).values())
    assert all(parameter.grad.isfinite().all() for parameter in outside_the_encoder(model).values())
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert all(parameter.dtype == dtype for parameter in loaded.base_model.encoder.parameters())
    assert torch.equal(loaded(**batch).logits, model.eval()(**batch).logits)


@pytest.fixture(params=["8 bits", "4 bits"])
def quantization(request):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    if request.param == "8 bits":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def check_what_is_quantized(model) -> None:
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {kind for name, kind in kinds.items() if "encoder." in name} in ({"Linear8bitLt"}, {"Linear4bit"})
    assert {kind for name, kind in kinds.items() if "encoder." not in name} == {"Linear"}


def test_a_quantized_encoder_below_a_parser_that_is_trained(encoder_folder, wordpiece, tmp_path, quantization):
    encoder = AutoModel.from_pretrained(encoder_folder, quantization_config=quantization)
    encoder.requires_grad_(False)
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2, estimator="spigot_ce")
    check_what_is_quantized(model)
    trainer = trainer_of(model, wordpiece, tmp_path / "out", num_train_epochs=10)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    check_what_is_quantized(loaded)
    batch = wordpiece(TEXTS[:4], padding=True, return_tensors="pt")
    torch.testing.assert_close(loaded(**batch).logits, model.eval()(**batch).logits, rtol=0, atol=1e-3)


def test_a_quantized_encoder_is_left_as_it_was(encoder_folder, wordpiece, quantization):
    """Evaluated on trial, layers of 4 bits would be packed on some processors, and take no gradient any more."""
    encoder = AutoModel.from_pretrained(encoder_folder, quantization_config=quantization)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2, estimator="marginals").train()
    assert all(torch.equal(parameter, before[name]) for name, parameter in encoder.named_parameters())
    batch = wordpiece(TEXTS[:4], padding=True, return_tensors="pt")
    model(**batch, labels=torch.tensor([1, 0, 0, 1])).loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().max() > 0


def test_a_quantized_encoder_of_another_size(wordpiece, tmp_path, quantization):
    sizes = {"hidden_size": 64, "word_embed_proj_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 64}
    OPTModel(OPTConfig(vocab_size=len(wordpiece), pad_token_id=0, **sizes)).save_pretrained(tmp_path / "opt")
    encoder = AutoModel.from_pretrained(tmp_path / "opt", quantization_config=quantization)
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2)
    assert model.config.hidden_size == 32
    assert model(**wordpiece(TEXTS[:2], padding=True, return_tensors="pt")).logits.isfinite().all()


def test_quantized_when_it_is_loaded(encoder_folder, wordpiece, tmp_path, quantization):
    model = LatentTreeForSequenceClassification.from_encoder(encoder_folder, num_labels=2).eval()
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", quantization_config=quantization)
    check_what_is_quantized(loaded)
    for name, parameter in outside_the_encoder(model).items():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    assert loaded(**wordpiece(TEXTS[:4], padding=True, return_tensors="pt")).logits.isfinite().all()


def test_lora_on_a_quantized_encoder(encoder_folder, wordpiece, tmp_path, quantization):
    pytest.importorskip("peft")
    encoder = AutoModel.from_pretrained(encoder_folder, quantization_config=quantization)
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2, estimator="spigot")
    adapted = with_lora(model)
    # (Evaluated first, 4-bit layers on a CPU take no gradient afterwards.)
    trainer = trainer_of(adapted, wordpiece, tmp_path / "out", num_train_epochs=10, logging_steps=2)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
