"""Training in processes: killed and resumed, several at once, with sharded parameters."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

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
