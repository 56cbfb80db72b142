"""Several devices without a launcher (`nn.DataParallel`, which the Trainer takes), and a gradient for every parameter (DDP)."""

import threading
from importlib import import_module

import heads_in_processes
import pytest
import torch
from conftest import TREE_ESTIMATORS
from datasets import Dataset
from test_training_in_processes import launched
from torch import nn
from torch.nn.parallel.scatter_gather import gather, scatter_kwargs
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from hf_latent import (
    BiLstmConfig,
    BiLstmModel,
    CRFForTokenClassification,
    LatentSelectionForSequenceClassification,
    LatentTreeConfig,
    LatentTreeForDependencyParsing,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
    LatentTreeModel,
    SegmentForTokenClassification,
)
from hf_latent.models import registered_models
from hf_latent.models.bilstm import word_tokenizer

# The second half of the batch has fewer words than the first.
TEXTS = ["not a very good film .", "a good unwatchable film", "unwatchable", "good film"]


class OnOneCpu(nn.Module):
    """`nn.DataParallel` without its devices: what copies between them is replaced, and all else is torch's own."""

    def __init__(self, module: nn.Module, replicas: int = 2) -> None:
        super().__init__()
        self.module, self.devices = module, list(range(replicas))

    def forward(self, *inputs, **kwargs):
        replicate = import_module("torch.nn.parallel.replicate")
        functions = import_module("torch.nn.parallel._functions")
        with pytest.MonkeyPatch.context() as patch:

            def broadcast(tensors, devices, detach=False):
                # Buffers on the first device are the module's own, there as here.
                copies = [[tensor.view_as(tensor) if not detach else tensor.clone() for tensor in tensors] for _ in devices]
                return [list(tensors) if detach else copies[0], *copies[1:]]

            patch.setattr(replicate, "_broadcast_coalesced_reshape", broadcast)
            patch.setattr(replicate, "_get_device_index", lambda device, _: device)
            patch.setattr(functions.Scatter, "apply", lambda devices, _, dim, value: value.chunk(len(devices), dim))
            patch.setattr(
                functions.Gather,
                "apply",
                lambda _, dim, *parts: torch.stack(parts) if parts[0].dim() == 0 else torch.cat(parts, dim),
            )
            own_inputs, own_kwargs = scatter_kwargs(inputs, kwargs, self.devices)
            replicas = replicate.replicate(self.module, self.devices[: len(own_inputs)])
            outputs: dict[int, object] = {}
            enabled = torch.is_grad_enabled()

            def work(place: int) -> None:
                with torch.set_grad_enabled(enabled):
                    outputs[place] = replicas[place](*own_inputs[place], **own_kwargs[place])

            threads = [threading.Thread(target=work, args=(place,)) for place in range(len(replicas))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return gather([outputs[place] for place in range(len(replicas))], 0)


def bilstm():
    tokenizer = word_tokenizer(["a", "good", "film", "not", "very", "unwatchable", "."], pairs=True)
    return BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=8, hidden_size=8)), tokenizer


MODELS = [one for one in registered_models().values() if one.config_class is LatentTreeConfig]
CLASSES = [one.model_class for one in MODELS]
CLASSES_OF_SINGLE_TEXTS = [one.model_class for one in MODELS if one.task.num_texts == 1]


def inputs_of(model_class, tokenizer, heads: bool, labels: bool) -> dict[str, torch.Tensor]:
    pairs = model_class is LatentTreeForPairClassification
    inputs = dict(tokenizer(TEXTS, [text[::-1] for text in TEXTS][::-1] if pairs else None, padding=True, return_tensors="pt"))
    if labels and model_class is LatentTreeForTokenClassification:
        special = torch.isin(inputs["input_ids"], torch.tensor(tokenizer.all_special_ids))
        inputs["labels"] = torch.ones_like(inputs["input_ids"]).masked_fill(special, -100)
    elif labels and model_class is not LatentTreeForDependencyParsing:
        inputs["labels"] = torch.tensor([0, 1, 1, 0])
    if heads:
        # That of the last word is known.
        last = torch.tensor([len(text.split()) - 1 for text in TEXTS])
        last = torch.stack([last, last.flip(0)], dim=1) if pairs else last
        inputs["heads"] = torch.full((*last.shape, 9), -100).scatter(-1, last[..., None], 0)
        if labels and model_class is LatentTreeForDependencyParsing:
            inputs["relations"] = inputs["heads"]  # of the words that have a head, all are the first
    return inputs


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("estimator", [None, "spigot", "marginals", "score_function"])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_of_replicas_gather(model_class, estimator, training):
    if estimator is None and model_class is LatentTreeForDependencyParsing:
        pytest.skip("a parser has a tree")
    encoder, tokenizer = bilstm()
    options = {"estimator": estimator} if model_class is LatentTreeModel else {"estimator": estimator, "num_labels": 2}
    model = model_class.from_encoder(encoder, tokenizer, **options).train(training)
    base = model_class is LatentTreeModel
    if base and training and estimator in ("spigot", "score_function"):
        pytest.skip("needs a loss of one's own")
    inputs = inputs_of(model_class, tokenizer, heads=estimator is not None, labels=not base)
    gathered = OnOneCpu(model)(**inputs, output_hidden_states=True)
    for name, value in gathered.items():
        if name == "hidden_states":
            assert all(state.shape[:2] == inputs["input_ids"].shape for state in value)
        else:
            assert len(value) == (2 if name == "loss" else 4), name
    alone = model.eval()(**inputs)
    n = int(alone.num_words.max())
    if not training:
        for name in ("logits", "num_words", "heads_loss"):
            if name in alone:
                torch.testing.assert_close(gathered[name], alone[name], rtol=0, atol=1e-5)
        for name in ("last_hidden_state", "heads"):
            if name in alone:
                own = gathered[name][..., :n] if name == "heads" else gathered[name][..., :n, :]
                torch.testing.assert_close(own, alone[name])
        if estimator is not None:
            torch.testing.assert_close(gathered.arcs[..., :n, : n + 1], alone.arcs)
            assert not gathered.arcs[..., n:, :].any()
    elif "loss" in gathered:
        gathered.loss.mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model_class", [CRFForTokenClassification, SegmentForTokenClassification])
def test_a_tagger_in_replicas(model_class, training):
    encoder, tokenizer = bilstm()
    names = {0: "O", 1: "B-x", 2: "I-x"}
    model = model_class.from_encoder(encoder, tokenizer, id2label=names).train(training)
    inputs = inputs_of(LatentTreeForTokenClassification, tokenizer, heads=False, labels=True)
    gathered, alone = OnOneCpu(model)(**inputs), model(**inputs)
    if alone.logits is not None:
        torch.testing.assert_close(gathered.logits, alone.logits, rtol=0, atol=1e-5)
    own = alone[model.scores_name]
    torch.testing.assert_close(gathered[model.scores_name][:, : own.shape[1]], own)
    assert len(gathered.loss) == 2
    if training:
        gathered.loss.mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("decoder_input", ["encoder", "embeddings"])
@pytest.mark.parametrize("estimator", [None, "spigot_ce", "ste_marginals"])
def test_a_choice_of_words_in_replicas(estimator, decoder_input, training):
    encoder, tokenizer = bilstm()
    model = LatentSelectionForSequenceClassification.from_encoder(
        encoder, tokenizer, num_labels=2, estimator=estimator, decoder_input=decoder_input, at_least=0.5
    ).train(training)
    inputs = inputs_of(LatentTreeForSequenceClassification, tokenizer, heads=False, labels=True)
    gathered, alone = OnOneCpu(model)(**inputs), model(**inputs)
    torch.testing.assert_close(gathered.logits, alone.logits, rtol=0, atol=1e-5)
    words = alone.chosen.shape[1]
    assert torch.equal(gathered.chosen[:, :words], alone.chosen)
    assert not gathered.chosen[:, words:].any()
    if training:
        gathered.loss.mean().backward()
        used = model.decoder if estimator is None else model
        assert all(parameter.grad is not None for parameter in used.parameters())


def test_state_that_goes_from_batch_to_batch_is_that_of_the_first_device():
    """As torch says of buffers; and no replica writes into another's."""
    encoder, tokenizer = bilstm()
    model = LatentTreeForSequenceClassification.from_encoder(
        encoder, tokenizer, num_labels=2, estimator="score_function"
    ).train()
    inputs = inputs_of(LatentTreeForSequenceClassification, tokenizer, heads=False, labels=True)
    for _ in range(5):
        model.latent_tree.tree.estimator_state.fill_(torch.nan)
        gathered = OnOneCpu(model)(**inputs)
        gathered.loss.mean().backward()
        torch.testing.assert_close(model.latent_tree.tree.estimator_state, gathered.loss[0].detach())


def trained(model, tokenizer, folder, monkeypatch=None, **options) -> Trainer:
    data = Dataset.from_dict({**tokenizer(TEXTS * 2), "labels": [0, 1, 1, 0] * 2})
    given = {"max_steps": 3, "learning_rate": 0.1, "optim": "sgd", "max_grad_norm": 0.0, "report_to": "none", "seed": 1}
    arguments = TrainingArguments(folder, save_strategy="no", **given | options)
    if monkeypatch is not None:
        arguments._n_gpu = 2
        monkeypatch.setattr(nn, "DataParallel", OnOneCpu)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda found: {"right": float((found.predictions.argmax(1) == found.label_ids).mean())},
    )
    trainer.train()
    return trainer


def test_the_trainer_on_two_devices_in_one_process_equals_one(tmp_path, monkeypatch):
    encoder, tokenizer = bilstm()
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    weights = []
    for patch, size in ((None, 4), (monkeypatch, 2)):
        encoder.load_state_dict(state)
        torch.manual_seed(1)
        model = LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=2, estimator="spigot")
        trainer = trained(model, tokenizer, tmp_path, patch, use_cpu=True, per_device_train_batch_size=size)
        found = trainer.evaluate()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        weights[-1]["found"] = torch.tensor([found["eval_loss"], found["eval_right"]])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("estimator", ["spigot", "marginals", "score_function"])
def test_the_trainer_on_two_gpus(estimator, tmp_path):
    encoder, tokenizer = bilstm()
    model = LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=2, estimator=estimator)
    trainer = trained(model, tokenizer, tmp_path, per_device_train_batch_size=2)
    assert isinstance(trainer.model_wrapped, nn.DataParallel)
    assert trainer.evaluate()["eval_loss"] > 0
    assert trainer.predict(trainer.eval_dataset).predictions.shape == (8, 2)


# Which parameters a batch reaches must not depend on what is in it.
def without_words(inputs):
    return {**inputs, "word_ids": torch.full_like(inputs["input_ids"], -1), "heads": torch.full((4, 1), -100)}


BATCHES = {
    "labels": lambda inputs: {name: value for name, value in inputs.items() if name != "heads"},
    "heads": lambda inputs: {name: value for name, value in inputs.items() if name != "labels"},
    "both": lambda inputs: inputs,
    "no head known": lambda inputs: {**inputs, "heads": torch.full_like(inputs["heads"], -100)},
    "no label known": lambda inputs: {
        name: torch.full_like(value, -100) if name in ("labels", "relations") else value for name, value in inputs.items()
    },
    "no words": without_words,
    "no words, labels": lambda inputs: {name: value for name, value in without_words(inputs).items() if name != "heads"},
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("model_class", CLASSES_OF_SINGLE_TEXTS)
@pytest.mark.parametrize("decoder_input", ["encoder", "embeddings"])
def test_every_parameter_gets_a_gradient(model_class, batch, decoder_input, tiny_bert, wordpiece):
    inputs = BATCHES[batch](inputs_of(model_class, wordpiece, heads=True, labels=True))
    if model_class is LatentTreeModel:
        inputs.pop("labels", None)
    if model_class in (LatentTreeModel, LatentTreeForDependencyParsing) and "heads" not in inputs:
        pytest.skip("has no loss without them")
    for estimator in ("spigot_ce", "marginals", "ste_identity"):
        options = {"estimator": estimator, "decoder_input": decoder_input}
        model = model_class.from_encoder(tiny_bert, wordpiece, **options).train()
        loss = model(**inputs).loss
        assert loss.dim() == 0
        assert loss.isfinite()
        loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("estimator", [None, *TREE_ESTIMATORS])
def test_every_parameter_gets_a_gradient_with_every_estimator(estimator, tiny_bert, wordpiece):
    for decoder_input in ("encoder", "embeddings"):
        model = LatentTreeForSequenceClassification.from_encoder(
            tiny_bert, wordpiece, num_labels=2, estimator=estimator, decoder_input=decoder_input
        ).train()
        model(**inputs_of(type(model), wordpiece, heads=estimator is not None, labels=True)).loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
        model.zero_grad()


def test_what_is_not_learned_from_adds_nothing(tiny_bert, wordpiece):
    """With gold heads alone, the decoder keeps its weights, even where it computes infinities."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="marginals").train()
    with torch.no_grad():
        model.classifier.bias.fill_(torch.inf)
    loss = model(**inputs_of(type(model), wordpiece, heads=True, labels=False)).loss
    assert loss.isfinite()
    loss.backward()
    assert not any(parameter.grad.any() for parameter in model.classifier.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_gold_heads_alone_in_two_processes(tmp_path):
    """The same weights as in one, and no `find_unused_parameters`."""
    launched(["torchrun", "--standalone", "--nproc_per_node", 2, heads_in_processes.__file__, tmp_path / "two.pt"])
    one, two = heads_in_processes.trained_weights(), torch.load(tmp_path / "two.pt")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
