"""A text has the same logits with whatever encoder, however it is asked for, alone or in a batch, padded on either side."""

import sys
from unittest import mock

import pytest
import torch
from datasets import Dataset
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    DataCollatorWithPadding,
    DebertaV2Config,
    DistilBertConfig,
    DPRConfig,
    DPRQuestionEncoder,
    ElectraConfig,
    GPT2Config,
    LayoutLMConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    XLNetConfig,
    pipeline,
)

from hf_latent import (
    BiLstmConfig,
    LatentTreeConfig,
    LatentTreeForSequenceClassification,
    LatentTreeModel,
)
from hf_latent.models.words.encoders import longest_text

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


def test_positions_are_counted_where_the_weights_are_in_another_process():
    encoder = BertModel(BertConfig(**SIZES, **LONGEST))
    assert longest_text(encoder) == 40
    encoder.embeddings.position_embeddings.weight = torch.nn.Parameter(torch.zeros(50, 32))
    assert longest_text(encoder) == 50
    encoder.embeddings.position_embeddings.weight.data = torch.zeros(0)
    assert longest_text(encoder) == 40


TINY = BertConfig(**SIZES, **LONGEST)
PADDED = {"input_ids": torch.tensor([[0, 0, 2, 6, 8, 3], [2, 5, 6, 8, 8, 3]])}
PADDED["attention_mask"] = PADDED["input_ids"].ne(0).long()


def with_option(way: str, option: str, wordpiece, folder) -> tuple[LatentTreeForSequenceClassification, dict]:
    """A model that is asked for `option` in this way, and what its calls are given."""
    encoder = BertModel(TINY.from_dict(TINY.to_dict())).eval()
    kind = LatentTreeForSequenceClassification
    if way == "from_encoder":
        return kind.from_encoder(encoder, wordpiece, **{option: True}).eval(), {}
    if way == "config":
        model = kind(LatentTreeConfig(text_config=encoder.config, **{option: True})).eval()
        model.base_model.set_word_boundaries(wordpiece)
        return model, {}
    model = kind.from_encoder(encoder, wordpiece).eval()
    if way == "call":
        model.set_attn_implementation("eager")
        return model, {option: True}
    model.save_pretrained(folder)
    return kind.from_pretrained(folder, **{option: True}), {}


@pytest.mark.parametrize("way", ["from_encoder", "from_pretrained", "config", "call"])
def test_hidden_states_and_attentions_are_those_of_the_encoder(way, wordpiece, tmp_path):
    model, call = with_option(way, "output_hidden_states", wordpiece, tmp_path)
    output = model(**PADDED, **call)
    assert output.attentions is None
    encoder = model.base_model.encoder
    for row, text in ((0, PADDED["input_ids"][:1, 2:]), (1, PADDED["input_ids"][1:])):
        expected = encoder(text, output_hidden_states=True).hidden_states
        assert len(output.hidden_states) == len(expected) == 3
        for found, own in zip(output.hidden_states, expected, strict=True):
            torch.testing.assert_close(found[row, -text.shape[1] :], own[0])
    model, call = with_option(way, "output_attentions", wordpiece, tmp_path)
    output = model(**PADDED, **call)
    text = PADDED["input_ids"][:1, 2:]
    expected = model.base_model.encoder(text, output_attentions=True).attentions
    assert len(output.attentions) == len(expected) == 2
    for found, own in zip(output.attentions, expected, strict=True):
        torch.testing.assert_close(found[0, :, 2:, 2:], own[0])
    model.save_pretrained(tmp_path / "again")


def test_attentions_that_cannot_be_had_are_warned_of(wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(BertModel(TINY), wordpiece)
    with mock.patch("hf_latent.models.words.modeling_words.logger.warning_once") as warn:
        assert model(**PADDED, output_attentions=True).attentions == ()
    assert "'sdpa', which has no `attentions`" in warn.call_args[0][0]


def test_an_encoder_keeps_how_it_computes_attention(wordpiece):
    encoder = AutoModel.from_config(TINY, attn_implementation="eager")
    assert LatentTreeModel.from_encoder(encoder, wordpiece).encoder.config._attn_implementation == "eager"


def test_no_second_encoder_is_made_and_none_is_copied(wordpiece):
    encoder = BertModel(TINY)
    encoder.set_input_embeddings(torch.nn.Embedding(16, 32))  # which nobody has initialized for transformers
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    with mock.patch.object(BertModel, "__init__", side_effect=AssertionError("another encoder")):
        model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece)
    assert model.base_model.encoder is encoder
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, before[name])


def test_of_an_encoder_decoder_nothing_is_copied(wordpiece):
    config = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    whole = T5ForConditionalGeneration(config)
    model = LatentTreeForSequenceClassification.from_encoder(whole, wordpiece)
    assert {id(one) for one in model.base_model.encoder.parameters()} == {id(one) for one in whole.get_encoder().parameters()}
    assert config.is_encoder_decoder
    with pytest.raises(ValueError, match="must be a T5EncoderModel, as which 't5' models are loaded; a T5Stack lacks 'shared'"):
        LatentTreeModel.from_encoder(whole.get_decoder(), wordpiece)


def test_what_is_given_of_each_token_goes_with_it(wordpiece):
    """Segments, positions, vectors and an encoder's own inputs, with the padding on the left."""
    model = LatentTreeForSequenceClassification.from_encoder(AutoModel.from_config(LayoutLMConfig(**SIZES)), wordpiece).eval()
    text = PADDED["input_ids"][:1, 2:]
    given = {
        "token_type_ids": torch.tensor([[0, 0, 1, 1]]),
        "position_ids": torch.tensor([[3, 1, 7, 2]]),
        "bbox": torch.arange(16).view(1, 4, 4),
    }
    padded = {name: torch.cat([value[:, :1], value[:, :1], value], dim=1) for name, value in given.items()}
    first = {name: value[:1] for name, value in PADDED.items()}
    torch.testing.assert_close(model(**first, **padded).logits, model(text, **given).logits)
    word_ids = torch.tensor([[-1, -1, -1, 0, 1, -1]])
    vectors = model.get_input_embeddings()(first.pop("input_ids"))
    vectors = model(**first, inputs_embeds=vectors, word_ids=word_ids, **padded)
    torch.testing.assert_close(vectors.logits, model(text, **given).logits)


def test_what_the_encoder_does_not_take(wordpiece):
    config = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    model = LatentTreeModel.from_encoder(AutoModel.from_config(config), wordpiece).eval()
    types = torch.zeros_like(PADDED["input_ids"])
    assert torch.equal(model(**PADDED, token_type_ids=types).last_hidden_state, model(**PADDED).last_hidden_state)
    with pytest.raises(ValueError, match=r"`position_ids` were given, but the encoder \('t5'\) does not take them"):
        model(**PADDED, position_ids=types)
    with pytest.raises(ValueError, match="Pass either `input_ids` or `inputs_embeds`"):
        model(attention_mask=PADDED["attention_mask"])


class SeesPadding(BertModel):
    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return super().forward(input_ids=input_ids, **kwargs)


class TellsOne(BertModel):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state[:, 0]
        return output


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        (SeesPadding(TINY), "SeesPadding .*padding changes what it makes of a text"),
        (TellsOne(TINY), "TellsOne .*not a vector of each"),
        (DPRQuestionEncoder(DPRConfig(**SIZES)), "DPRQuestionEncoder .*no `last_hidden_state`"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_encoders_that_are_found_out_on_trial(encoder, why, wordpiece):
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.2)
    encoder.train()
    encoder.pooler = None
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"`encoder` cannot be a {why}"):
        LatentTreeModel.from_encoder(encoder, wordpiece)
    assert torch.equal(torch.get_rng_state(), state)
    assert encoder.training


CODE = """
import transformers
class OwnConfig(transformers.BertConfig):
    model_type = "own_bert"
class OwnModel(transformers.BertModel):
    config_class = OwnConfig
"""


def test_an_encoder_of_remote_code_is_used_but_not_saved(wordpiece, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "encoder"
    BertModel(TINY).save_pretrained(folder)
    (folder / "own_bert.py").write_text(CODE)
    config = AutoConfig.from_pretrained(folder).to_dict()
    config |= {"model_type": "own_bert", "auto_map": {"AutoConfig": "own_bert.OwnConfig", "AutoModel": "own_bert.OwnModel"}}
    PreTrainedConfig(**config).to_json_file(folder / "config.json", use_diff=False)
    encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(encoder).__name__ == "OwnModel"
    model = LatentTreeForSequenceClassification.from_encoder(encoder, wordpiece, num_labels=2).eval()
    assert model(**PADDED).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"with a OwnModel in it cannot be saved: its code is not part.*AutoModel.register"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_an_encoder_of_the_users_own_is_saved_once_it_is_registered(wordpiece, tmp_path):
    class OwnConfig(BertConfig):
        model_type = "a_bert_of_my_own"

    class Own(BertModel):
        config_class = OwnConfig

    model = LatentTreeForSequenceClassification.from_encoder(Own(OwnConfig(**SIZES)), wordpiece).eval()
    with pytest.raises(ValueError, match="with a Own in it cannot be saved"):
        model.save_pretrained(tmp_path)
    AutoConfig.register("a_bert_of_my_own", OwnConfig)
    AutoModel.register(OwnConfig, Own)
    model.save_pretrained(tmp_path)
    loaded = LatentTreeForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded.base_model.encoder) is Own
    assert torch.equal(loaded(**PADDED).logits, model(**PADDED).logits)
