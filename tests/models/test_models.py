"""The models as a Hugging Face user meets them: made from an encoder, trained by the Trainer, saved, loaded, served."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import TREE_ESTIMATORS
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForSequenceClassification, LatentTreeModel
from hf_latent.layers import pool_words
from hf_latent.models.bilstm import word_tokenizer

TEXTS = ["a good film", "not a very unwatchable film , bad .", "good", ""]


@pytest.fixture
def model(tiny_bert, wordpiece):
    return LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=3, dropout=0.1)


def encode(tokenizer, texts=TEXTS):
    return tokenizer(texts, padding=True, return_tensors="pt")


@pytest.mark.parametrize("estimator", [None, *TREE_ESTIMATORS])
@pytest.mark.parametrize("encoder", ["bert", "bilstm"])
def test_forward_and_backward(estimator, encoder, tiny_bert, wordpiece):
    base, tokenizer = tiny_bert, wordpiece
    if encoder == "bilstm":
        tokenizer = word_tokenizer(["a", "good", "film", "not", "very", "bad"])
        base = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=8, hidden_size=16))
    model = LatentTreeForSequenceClassification.from_encoder(base, tokenizer, num_labels=3, estimator=estimator)
    model.train()
    output = model(**encode(tokenizer), labels=torch.tensor([0, 1, 2, 0]))
    output.loss.backward()
    assert output.logits.shape == (4, 3)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient: it would break distributed training"
        assert parameter.grad.isfinite().all()
    if estimator is not None:
        n = int(output.num_words.max())
        assert output.arcs.shape == output.arc_scores.shape == (4, n, n + 1)
        assert output.arcs[3].sum() == 0  # an empty text has an empty tree


def test_saved_and_loaded_in_a_fresh_process_it_is_the_same_to_the_last_bit(model, wordpiece, tmp_path):
    folder = tmp_path / "model"
    model.eval().save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "modeling_hf_latent.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    script = (
        "import sys, torch, hf_latent\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "model, tokenizer = (A.from_pretrained(sys.argv[1]) for A in (AutoModelForSequenceClassification, AutoTokenizer))\n"
        f"output = model(**tokenizer({TEXTS!r}, padding=True, return_tensors='pt'))\n"
        "torch.save((output.logits, output.arcs), sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", script, folder, tmp_path / "output.pt"], check=True, capture_output=True)
    logits, arcs = torch.load(tmp_path / "output.pt")
    output = model(**encode(wordpiece))
    assert torch.equal(logits, output.logits)
    assert torch.equal(arcs, output.arcs)


def test_auto_classes_and_config_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.model_type == "latent_tree"
    assert config.text_config.model_type == "bert"
    saved, loaded = model.config.to_dict(), config.to_dict()
    assert all(loaded[name] == value for name, value in saved.items() if name != "_name_or_path")
    assert isinstance(AutoModel.from_pretrained(tmp_path), LatentTreeModel)
    assert isinstance(AutoModelForSequenceClassification.from_config(config), LatentTreeForSequenceClassification)
    assert json.loads((tmp_path / "config.json").read_text())["estimator"] == "marginals"  # also where it is the default


def test_a_batch_changes_nothing(model, wordpiece):
    model.eval()
    together = model(**encode(wordpiece)).logits
    alone = torch.cat([model(**encode(wordpiece, [text])).logits for text in TEXTS])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_padding_on_the_left_changes_nothing():
    tokenizer = word_tokenizer(["a", "good", "film", "not", "very", "bad"])
    encoder = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=8, hidden_size=16))
    model = LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=3).eval()
    right = model(**encode(tokenizer))
    tokenizer.padding_side = "left"
    left = model(**encode(tokenizer))
    torch.testing.assert_close(left.logits, right.logits, rtol=0, atol=1e-5)
    assert torch.equal(left.arcs, right.arcs)


def dataset(tokenizer, count=24):
    texts = [TEXTS[place % 3] for place in range(count)]
    return Dataset.from_dict({**tokenizer(texts), "labels": [place % 3 for place in range(count)], "unused": texts})


def test_the_stock_trainer_trains_it_and_the_pipeline_serves_it(model, wordpiece, tmp_path):
    arguments = TrainingArguments(
        tmp_path, num_train_epochs=12, per_device_train_batch_size=8, learning_rate=1e-2, report_to="none", use_cpu=True
    )
    data, collator = dataset(wordpiece), DataCollatorWithPadding(wordpiece)
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data, data_collator=collator)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 2
    served = pipeline("text-classification", model=model, tokenizer=wordpiece, top_k=None, function_to_apply="none")
    predicted = trainer.predict(data).predictions[:3]
    for text, logits in zip(TEXTS[:3], predicted, strict=True):
        scores = {entry["label"]: entry["score"] for entry in served([text])[0]}
        torch.testing.assert_close(
            torch.tensor([scores[f"LABEL_{label}"] for label in range(3)]), torch.tensor(logits), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("estimator", ["marginals", "spigot_ce"])
def test_gradient_accumulation_gives_the_gradient_of_the_whole_batch(tiny_bert, wordpiece, estimator):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert.eval(), wordpiece, num_labels=3, estimator=estimator)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    batch, labels = encode(wordpiece), torch.tensor([0, 1, 2, 0])

    def gradients(parts):
        model.zero_grad()
        for part in parts:
            rows = {name: value[part] for name, value in batch.items()}
            model(**rows, labels=labels[part], num_items_in_batch=len(labels)).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole = gradients([slice(0, 4)])
    torch.testing.assert_close(gradients([slice(0, 1), slice(1, 4)]), whole, rtol=1e-3, atol=1e-6)
    model.zero_grad()
    model(**batch, labels=labels).loss.backward()
    mean = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(mean, whole, rtol=1e-4, atol=1e-7)


def test_regression_and_several_labels(tiny_bert, wordpiece):
    batch = encode(wordpiece)
    regression = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=1).eval()
    labels = torch.rand(4)
    output = regression(**batch, labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.mse_loss(output.logits[:, 0], labels))
    several = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=3).eval()
    labels = torch.randint(0, 2, (4, 3)).float()
    output = several(**batch, labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, labels)
    torch.testing.assert_close(output.loss, expected)
    assert several.config.problem_type is None  # a loss call leaves no trace in the config


def test_ignored_labels_do_not_count(model, wordpiece):
    model.eval()
    batch = encode(wordpiece)
    output = model(**batch, labels=torch.tensor([0, -100, 2, -100]))
    expected = torch.nn.functional.cross_entropy(output.logits[[0, 2]], torch.tensor([0, 2]))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 3, 0]), r"labels\[2\] is 3"),
        (torch.tensor([0, 1, -1, 0]), r"labels\[2\] is -1"),
        (torch.tensor([[0], [1], [2], [0]]), r"must be class numbers of shape \(4,\)"),
        (torch.rand(4), r"shape \(4, 3\) for multi label classification"),
    ],
)
def test_labels_that_do_not_fit(model, wordpiece, labels, message):
    with pytest.raises(ValueError, match=message):
        model(**encode(wordpiece), labels=labels)


def test_argmax_at_evaluation(tiny_bert, wordpiece):
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="marginals", argmax_at_evaluation=True).eval()
    arcs = model(**encode(wordpiece)).arcs
    assert set(arcs.unique().tolist()) == {0.0, 1.0}


def test_a_decoder_that_sees_embeddings_sees_no_context(tiny_bert, wordpiece):
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator=None, decoder_input="embeddings").eval()
    one, other = (model(**encode(wordpiece, [text])).last_hidden_state[0] for text in ("a good film", "film good a"))
    torch.testing.assert_close(one.flip(0), other)
    with_context = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator=None).eval()
    one, other = (with_context(**encode(wordpiece, [text])).last_hidden_state[0] for text in ("a good film", "film good a"))
    assert not torch.allclose(one.flip(0), other)


def test_options_that_do_not_exist(tiny_bert, wordpiece):
    with pytest.raises(TypeError, match=r"Unknown option 'estimater'.*estimator"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimater="spigot")
    with pytest.raises(TypeError, match=r"Unknown option 'dtype'.*load it with `AutoModel.from_pretrained`"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="`encoder` must be a name, a folder or a model of transformers, got a Linear"):
        LatentTreeModel.from_encoder(torch.nn.Linear(2, 2), wordpiece)
    with pytest.raises(ValueError, match="Unknown estimator 'spigott'"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="spigott")
    with pytest.raises(ValueError, match="Unknown `arc_scorer` 'cubic'"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, arc_scorer="cubic")
    with pytest.raises(ValueError, match="`decoder_input` must be"):
        LatentTreeModel.from_encoder(tiny_bert, wordpiece, decoder_input="words")


def test_without_a_tokenizer_word_ids_are_asked_for(tiny_bert, wordpiece):
    model = LatentTreeModel.from_encoder(tiny_bert).eval()
    batch = encode(wordpiece, ["unwatchable film"])
    with pytest.raises(ValueError, match=r"made without a tokenizer.*word_ids"):
        model(**batch)
    word_ids = torch.tensor([[-1 if word is None else word for word in batch.word_ids(0)]])
    assert model(**batch, word_ids=word_ids).num_words.tolist() == [2]
    model.set_word_boundaries(wordpiece)
    assert model(**batch).num_words.tolist() == [2]


def test_word_ids_that_are_given_count_more_than_the_tokens(model, wordpiece):
    model.eval()
    batch = encode(wordpiece, ["good film"])
    assert model(**batch).num_words.tolist() == [2]
    assert model(**batch, word_ids=torch.tensor([[-1, 0, 0, -1]])).num_words.tolist() == [1]


def test_training_without_labels_says_what_it_needs(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce").train()
    with pytest.raises(ValueError, match=r"needs a `task_loss` \(for a model: `labels`\)"):
        model(**encode(wordpiece))
    assert model.eval()(**encode(wordpiece)).logits.shape == (4, 2)


def test_gradient_checkpointing_changes_nothing(tiny_bert, wordpiece):
    tokenizer = word_tokenizer(["a", "good", "film", "not", "very", "bad"])
    encoder = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=8, hidden_size=16, num_hidden_layers=2))
    model = LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=2).train()

    def gradient():
        model.zero_grad()
        model(**encode(tokenizer), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    plain = gradient()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain)


def test_pretrained_weights_survive_a_new_head(model, tmp_path):
    """A checkpoint of the base model under the classifier: what is there is loaded, what is missing is new."""
    model.latent_tree.save_pretrained(tmp_path)
    loaded, info = LatentTreeForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    for one, other in zip(loaded.latent_tree.parameters(), model.latent_tree.parameters(), strict=True):
        assert torch.equal(one, other)
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"classifier", "decoder", "pooling"}
    assert torch.equal(loaded.latent_tree.token_kinds, model.latent_tree.token_kinds)
    assert all(parameter.isfinite().all() for parameter in loaded.parameters())


def test_tokenizer_round_trip(tmp_path):
    tokenizer = word_tokenizer(["a", "film"])
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("A good film")["input_ids"] == tokenizer("A good film")["input_ids"] == [2, 1, 3]


def test_resized_embeddings(model, wordpiece, tmp_path):
    model.eval()
    wordpiece = wordpiece.__class__(tokenizer_object=wordpiece.backend_tokenizer, **wordpiece.special_tokens_map)
    before = model(**encode(wordpiece)).logits
    wordpiece.add_tokens(["masterpiece"])
    model.resize_token_embeddings(len(wordpiece))
    torch.testing.assert_close(model(**encode(wordpiece)).logits, before)
    assert model(**encode(wordpiece, ["a masterpiece"])).num_words.tolist() == [2]
    model.save_pretrained(tmp_path)
    loaded = LatentTreeForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**encode(wordpiece)).logits, model(**encode(wordpiece)).logits)
    model.base_model.set_word_boundaries(wordpiece)


def test_training_in_inference_mode_says_what_to_do(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot").train()
    with torch.inference_mode(), pytest.raises(ValueError, match=r"Call `model.eval\(\)`"):
        model(**encode(wordpiece), labels=torch.tensor([0, 1, 1, 0]))


@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_a_row_of_nothing_but_padding(tiny_bert, wordpiece, estimator):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator).train()
    batch = {"input_ids": torch.tensor([[2, 5, 6, 3], [0, 0, 0, 0]]), "attention_mask": torch.tensor([[1] * 4, [0] * 4])}
    output = model(**batch, labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert output.num_words.tolist() == [2, 0]
    assert output.logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_empty_text(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2).eval()
    assert model(**wordpiece("", return_tensors="pt")).logits.isfinite().all()


@pytest.mark.parametrize("decoder_input", ["encoder", "embeddings"])
def test_words_are_pooled_once(tiny_bert, wordpiece, monkeypatch, decoder_input):
    pooled = []

    def pool(*args):
        pooled.append(args)
        return pool_words(*args)

    monkeypatch.setattr("hf_latent.models.words.modeling_words.pool_words", pool)
    model = LatentTreeForSequenceClassification.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator="spigot", decoder_input=decoder_input, word_pooling="mean"
    )
    inputs = wordpiece(TEXTS[:3], padding=True, return_tensors="pt")
    model(**inputs, labels=torch.tensor([0, 1, 1])).loss.backward()
    assert len(pooled) == 1
    base, word_ids = model.eval().base_model, pooled[0][1]
    words, _ = pool_words(base.get_input_embeddings()(inputs["input_ids"]), word_ids, "mean")
    expected = base.head_averaging(words, base(**inputs).arcs)
    assert torch.equal(base(**inputs).last_hidden_state, expected) == (decoder_input == "embeddings")
