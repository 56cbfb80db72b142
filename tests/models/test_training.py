"""Training as people train: resumed, killed, adapted, in half precision, in several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import cache
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
    pipeline,
)
from transformers.trainer_utils import get_last_checkpoint

from hf_latent import LatentTreeForSequenceClassification, TreeStatisticsCallback, parse
from hf_latent.model_cards import ModelCardCallback

# A run that saves as it goes, and goes on from the last checkpoint where it finds one.
SCRIPT = """
import json, sys, time, torch
from pathlib import Path
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForSequenceClassification
from hf_latent.models.bilstm import word_tokenizer

folder, estimator, speed = sys.argv[1:4]
options = {"max_steps": 14, "save_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "seed": 1, "dropout": 0.1}
options |= json.loads(sys.argv[4])

class Slow(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        time.sleep(0.3)

class StopsAsItWrites(Trainer):
    def _save_rng_state(self, output_dir):
        if self.state.global_step == 8:
            time.sleep(120)
        super()._save_rng_state(output_dir)

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
callbacks = [Slow()] if speed == "slow" else []
kind = StopsAsItWrites if speed == "stops as it writes" else Trainer
trainer = kind(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=callbacks)
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
if trainer.is_world_process_zero():
    trainer.save_model(folder + "/final")
"""


def command(folder: Path, estimator: str, speed: str = "fast", **options: object) -> list[str]:
    return ["-c", SCRIPT, str(folder), estimator, speed, json.dumps(options)]


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


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The weights that a run ends in which was not killed."""
    return cache(lambda estimator: finish(tmp_path_factory.mktemp("whole"), estimator))


def killed(folder: Path, estimator: str, speed: str, at: Path) -> None:
    """Runs until the file is there and half a second more."""
    process = subprocess.Popen(
        [sys.executable, *command(folder, estimator, speed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not at.is_file():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "final").exists()


@pytest.mark.parametrize("estimator", ["spigot", "score_function"])
def test_killed_and_resumed_it_ends_in_the_same_weights(whole_run, tmp_path, estimator):
    """Killed in the middle of the steps after a checkpoint."""
    killed(tmp_path, estimator, "slow", tmp_path / "checkpoint-8" / "trainer_state.json")
    whole, resumed = whole_run(estimator), finish(tmp_path, estimator)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_killed_as_it_wrote_a_checkpoint(whole_run, tmp_path):
    """The last file that the Trainer writes tells whether a checkpoint is whole; without the one that is not, it goes on."""
    killed(tmp_path, "spigot", "stops as it writes", tmp_path / "checkpoint-8" / "optimizer.pt")
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    for checkpoint in tmp_path.glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").is_file():
            shutil.rmtree(checkpoint)
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    whole, resumed = whole_run("spigot"), finish(tmp_path, "spigot")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def launched(command: list[object], **more: str) -> None:
    """Runs a command of this environment, such as `accelerate launch`, and waits for its end."""
    command = [str(Path(sys.executable).with_name(str(command[0]))), *map(str, command[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(**more), check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_equal_one(tmp_path):
    """`accelerate launch` on two CPU processes, with half the batch each."""
    options = {"max_steps": 6, "dropout": 0.0, "optim": "sgd", "max_grad_norm": 0.0}
    one = finish(tmp_path / "one", "spigot", per_device_train_batch_size=4, **options)
    (tmp_path / "train.py").write_text(SCRIPT)
    arguments = command(tmp_path / "two", "spigot", per_device_train_batch_size=2, ddp_backend="gloo", **options)[2:]
    # (`--multi_gpu` for what starts several processes; with `--cpu`, accelerate wants MPI.)
    settings = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"]
    launched(["accelerate", "launch", *settings, "--main_process_port", 0, tmp_path / "train.py", *arguments])
    two = load_file(tmp_path / "two" / "final" / "model.safetensors")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)


def test_parameters_sharded_over_two_processes(tmp_path):
    """FSDP2. The inner steps of the estimator call the decoder in the middle of the forward pass."""
    script = Path(__file__).parents[1] / "sharded_training.py"
    launched(["python", script, "spigot_ce", tmp_path / "one.pt"])
    launched(["torchrun", "--standalone", "--nproc_per_node", 2, script, "spigot_ce", tmp_path / "two.pt"])
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)


def test_the_configuration_for_fsdp_wraps_layers_and_trees(tiny_bert, wordpiece, monkeypatch):
    """examples/accelerate/fsdp.yaml, as `accelerate launch` reads it and hands it on to the processes."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = Path(__file__).parents[2] / "examples" / "accelerate" / "fsdp.yaml"
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(file), "train.py"]))
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2)
    wraps = fsdp2_prepare_auto_wrap_policy(FullyShardedDataParallelPlugin(), model)
    assert {type(module).__name__ for module in model.modules() if wraps(module)} == {
        "BertEmbeddings",
        "BertLayer",
        "LatentTreeLayer",
    }


# All that stands outside the encoder, as the README names it for LoRA.
NEW_MODULES = ["latent_tree.tree", "latent_tree.head_averaging", "decoder", "pooling", "classifier"]
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
    """The Trainer makes a new model for each trial, by `model_init`, with what the trial proposes."""
    pytest.importorskip("optuna")
    tiny_bert.save_pretrained(tmp_path / "encoder")
    wordpiece.save_pretrained(tmp_path / "encoder")
    tried = []

    def model_init(trial=None):
        step_size = trial.suggest_float("step_size", 0.1, 1.0) if trial is not None else 1.0
        tried.append(step_size)
        return LatentTreeForSequenceClassification.from_encoder(
            tmp_path / "encoder", num_labels=2, estimator="spigot", estimator_options={"step_size": step_size}
        )

    data = data_of(wordpiece)
    trainer = Trainer(
        model_init=model_init,
        args=TrainingArguments(tmp_path / "out", max_steps=2, report_to="none", use_cpu=True, save_strategy="no"),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(wordpiece),
        processing_class=wordpiece,
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        n_trials=3,
        direction="minimize",
        backend="optuna",
    )
    assert 1e-4 <= best.hyperparameters["learning_rate"] <= 1e-2
    assert best.hyperparameters["step_size"] in tried
    assert len(set(tried)) >= 4  # 1.0 for the Trainer itself, then one a trial


@pytest.mark.parametrize("estimator", ["marginals", "spigot"])
def test_compiled_by_the_trainer(tiny_bert, wordpiece, tmp_path, estimator):
    """The same weights as without. (A backend that needs no C++ compiler.)"""
    state = {name: value.clone() for name, value in tiny_bert.state_dict().items()}
    weights = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        tiny_bert.load_state_dict(state)
        torch.manual_seed(3)
        model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator=estimator)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer_of(model, wordpiece, tmp_path, num_train_epochs=1, optim="sgd", **options).train()
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)


def with_lora(model):
    """LoRA on the encoder; all that is new stands outside it, and is trained in full."""
    import peft

    config = peft.LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=NEW_MODULES)
    adapted = peft.get_peft_model(model, config)
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in trainable)
    assert any("scorer.bilinear" in name for name in trainable)
    assert not any("encoder" in name and "lora" not in name for name in trainable)
    return adapted


def test_lora_on_the_encoder_with_the_parser_trained_in_full(tiny_bert, wordpiece, tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot")
    model.save_pretrained(tmp_path / "base")
    adapted = with_lora(model)
    trainer = trainer_of(adapted, wordpiece, tmp_path / "out", num_train_epochs=15)
    trainer.add_callback(TreeStatisticsCallback(trainer, TEXTS))
    trainer.add_callback(ModelCardCallback(trainer, "a very good film ."))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before
    assert any("trees/depth" in entry for entry in trainer.state.log_history)
    assert (tmp_path / "out" / "tree.svg").is_file()
    adapted.save_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    inputs = wordpiece(TEXTS[:4], padding=True, return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs).logits, adapted.eval()(**inputs).logits)
    trees = parse(adapted, wordpiece, TEXTS[:4])
    served = pipeline("latent-tree-parsing", model=adapted, tokenizer=wordpiece, device="cpu")(TEXTS[:4])
    assert [list(tree.heads) for tree in trees] == [one["heads"] for one in served]


def test_a_frozen_encoder(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce")
    model.base_model.encoder.requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer_of(model, wordpiece, tmp_path).train()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("encoder." in name or name.endswith("pooling.weights.bias")), name


def test_what_an_estimator_carries_over_is_saved_with_the_weights(tiny_bert, wordpiece, tmp_path):
    """The moving average of losses that the score function starts its next batch from."""
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="score_function")
    state = model.base_model.tree.estimator_state
    assert state.isnan()
    inputs, labels = wordpiece(TEXTS, padding=True, return_tensors="pt"), torch.tensor([1, 0, 0, 1] * 4)
    model.train()
    losses = []
    for _ in range(2):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        losses.append(loss.item())
        assert state.item() == pytest.approx(losses[0] if len(losses) == 1 else 0.99 * losses[0] + 0.01 * losses[1])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).train()
    assert torch.equal(loaded.base_model.tree.estimator_state, state)
    loaded(**inputs, labels=labels).loss.backward()
    assert not torch.equal(loaded.base_model.tree.estimator_state, state)
    assert type(model).from_pretrained(None, config=model.config, state_dict={}).base_model.tree.estimator_state.isnan()


def test_a_loss_that_leaves_the_tree_out_is_told(tiny_bert, wordpiece):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce").train()
    inputs, labels = wordpiece(TEXTS, padding=True, return_tensors="pt"), torch.tensor([1, 0, 0, 1] * 4)
    for with_the_tree in (True, False):
        output = model(**inputs, labels=labels)
        loss = torch.nn.functional.cross_entropy(output.logits, labels)
        (loss + output.latent_loss.mean() if with_the_tree else loss).backward()
    with pytest.warns(UserWarning, match="the tree learned nothing.*add `output.latent_loss.mean"):
        model(**inputs, labels=labels).loss.backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**inputs, labels=labels)


def test_labels_that_the_trainer_takes_away(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, estimator="spigot_ce")
    with pytest.raises(ValueError, match="It does so for `label_smoothing_factor`"):
        trainer_of(model, wordpiece, tmp_path, label_smoothing_factor=0.1).train()
