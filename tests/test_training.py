"""Training as people train: resumed, killed, adapted, in half precision, in several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)

from hf_latent import LatentTreeForSequenceClassification

# A run that saves as it goes, and goes on from the last checkpoint where it finds one.
SCRIPT = """
import json, sys, time, torch
from pathlib import Path
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForSequenceClassification
from hf_latent.models.bilstm import word_tokenizer

folder, estimator, slow = sys.argv[1], sys.argv[2], sys.argv[3] == "slow"
options = {"max_steps": 14, "save_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "seed": 1, "dropout": 0.1}
options |= json.loads(sys.argv[4])

class Slow(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        time.sleep(0.3)

Path(folder).mkdir(parents=True, exist_ok=True)
set_seed(1)
tokenizer = word_tokenizer(["a", "good", "bad", "film", "not"])
encoder = BiLstmModel(BiLstmConfig(vocab_size=len(tokenizer), embedding_size=8, hidden_size=8))
model = LatentTreeForSequenceClassification.from_encoder(
    encoder, tokenizer, num_labels=2, estimator=estimator, dropout=options.pop("dropout")
)
texts = ["a good film", "not a bad film", "bad", "not good", "a film", "good good film not bad"] * 4
data = Dataset.from_dict({**tokenizer(texts), "labels": [1, 1, 0, 0, 1, 0] * 4})
arguments = TrainingArguments(folder, report_to="none", use_cpu=True, **options)
trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Slow()] if slow else [])
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
if trainer.is_world_process_zero():
    trainer.save_model(folder + "/final")
"""


def command(folder: Path, estimator: str, slow: bool = False, **options: object) -> list[str]:
    return ["-c", SCRIPT, str(folder), estimator, "slow" if slow else "fast", json.dumps(options)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def finish(folder: Path, estimator: str, **options: object) -> dict[str, torch.Tensor]:
    done = subprocess.run(
        [sys.executable, *command(folder, estimator, **options)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "final" / "model.safetensors")


@pytest.mark.parametrize("estimator", ["spigot", "perturb_and_map"])
def test_killed_and_resumed_it_ends_in_the_same_weights(tmp_path, estimator):
    whole = finish(tmp_path / "whole", estimator)
    process = subprocess.Popen(
        [sys.executable, *command(tmp_path / "killed", estimator, slow=True)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoint-8" / "trainer_state.json").is_file():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # in the middle of the steps after the checkpoint
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "final").exists()
    resumed = finish(tmp_path / "killed", estimator)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_equal_one(tmp_path):
    """Half the batch each. (What `accelerate launch` starts on several GPUs; on CPUs that wants MPI.)"""
    one = finish(
        tmp_path / "one", "spigot", per_device_train_batch_size=4, max_steps=6, dropout=0.0, optim="sgd", max_grad_norm=0.0
    )
    (tmp_path / "train.py").write_text(SCRIPT)
    arguments = command(
        tmp_path / "two",
        "spigot",
        per_device_train_batch_size=2,
        max_steps=6,
        dropout=0.0,
        optim="sgd",
        max_grad_norm=0.0,
        ddp_backend="gloo",
    )[2:]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "train.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = load_file(tmp_path / "two" / "final" / "model.safetensors")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)


TEXTS = ["a very good film .", "not unwatchable", "bad", "a good , very good unwatchable film ."] * 4


def data_of(tokenizer) -> Dataset:
    return Dataset.from_dict({**tokenizer(TEXTS), "labels": [1, 0, 0, 1] * 4})


def trainer_of(model, tokenizer, folder, callbacks=(), **options) -> Trainer:
    given = {"num_train_epochs": 4, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True} | options
    data = data_of(tokenizer)
    return Trainer(
        model,
        TrainingArguments(folder, **given),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize("estimator", ["marginals", "spigot", "spigot_ce", "sparsemap", "perturb_and_map"])
def test_half_precision(tiny_bert, wordpiece, tmp_path, estimator):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
    trainer = trainer_of(model, wordpiece, tmp_path, bf16=True, num_train_epochs=15)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_the_best_model_is_loaded_at_the_end_and_training_stops_early(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_eg")
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 40}
    stop = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=0.05)
    trainer = trainer_of(model, wordpiece, tmp_path, [stop], metric_for_best_model="loss", greater_is_better=False, **options)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) < 40
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-5)


def test_hyperparameter_search(tiny_bert, wordpiece, tmp_path):
    """The Trainer makes a new model for each trial, by `model_init`."""
    encoder = tmp_path / "encoder"
    tiny_bert.save_pretrained(encoder)
    wordpiece.save_pretrained(encoder)

    def model_init():
        return LatentTreeForSequenceClassification.from_encoder(encoder, num_labels=2, estimator="spigot")

    data = data_of(wordpiece)
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(tmp_path / "out", max_steps=2, report_to="none", use_cpu=True),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(wordpiece),
        processing_class=wordpiece,
    )
    trainer.train()
    assert isinstance(trainer.model, LatentTreeForSequenceClassification)


def test_lora_on_the_encoder_with_the_parser_trained_in_full(tiny_bert, wordpiece, tmp_path):
    peft = pytest.importorskip("peft")
    tiny_bert.save_pretrained(tmp_path / "encoder")
    torch.manual_seed(3)
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot")
    model.save_pretrained(tmp_path / "base")
    # All that is new stands outside the encoder, and is trained in full.
    config = peft.LoraConfig(
        r=4,
        target_modules=["query", "value"],
        modules_to_save=["latent_tree.tree", "latent_tree.heads", "decoder", "pooling", "classifier"],
    )
    adapted = peft.get_peft_model(model, config)
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in trainable)
    assert any("scorer.bilinear" in name for name in trainable)
    assert not any("encoder" in name and "lora" not in name for name in trainable)
    trainer = trainer_of(adapted, wordpiece, tmp_path / "out", num_train_epochs=15)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    adapted.save_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    inputs = wordpiece(TEXTS[:4], padding=True, return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs).logits, adapted.eval()(**inputs).logits)


def test_a_frozen_encoder(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce")
    model.base_model.encoder.requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer_of(model, wordpiece, tmp_path).train()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("encoder." in name or name.endswith("pooling.weights.bias")), name
