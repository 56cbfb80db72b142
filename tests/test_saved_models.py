"""Models that older code has saved: they load, to the last bit, and compute what they computed then."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

import hf_latent

# Of format 2, in which the weights of `head_averaging` were called "heads".
FOLDER = Path(__file__).parent / "saved_models"
MODELS = {
    "sequence_classification": AutoModelForSequenceClassification,
    "token_classification": AutoModelForTokenClassification,
}


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


def old_and_new(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace("latent_tree.heads.", "latent_tree.head_averaging."): weight for key, weight in weights.items()}


def check_weights(model: torch.nn.Module, name: str) -> None:
    expected, found = old_and_new(load_file(FOLDER / name / "model.safetensors")), model.state_dict()
    assert "latent_tree.head_averaging.root" in expected
    assert expected.keys() == found.keys()
    for key, weight in expected.items():
        assert torch.equal(found[key], weight), key


def check_outputs(model: torch.nn.Module, name: str) -> None:
    """Equal to the last bit, where the processor and torch are those that the outputs were computed with."""
    saved = load_file(FOLDER / name / "outputs.safetensors")
    with safe_open(FOLDER / name / "outputs.safetensors", "pt") as file:
        made_by = file.metadata()
    here = {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()}
    with torch.no_grad():
        output = model.eval()(input_ids=saved["input_ids"], attention_mask=saved["attention_mask"])
    for key in ("logits", "arcs", "arc_scores"):
        if made_by == here:
            assert torch.equal(output[key], saved[key]), key
        else:
            torch.testing.assert_close(output[key], saved[key], rtol=0, atol=1e-6)


def test_loaded_by_the_auto_class(name):
    model, info = MODELS[name].from_pretrained(FOLDER / name, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    check_weights(model, name)
    check_outputs(model, name)


def test_loaded_as_a_base_model(name):
    model, info = AutoModel.from_pretrained(FOLDER / name, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(model.head_averaging.root, load_file(FOLDER / name / "model.safetensors")["latent_tree.heads.root"])


def test_saved_again_with_the_names_of_today(name, tmp_path):
    MODELS[name].from_pretrained(FOLDER / name).save_pretrained(tmp_path)
    assert "latent_tree.head_averaging.root" in load_file(tmp_path / "model.safetensors")
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 3
    model = MODELS[name].from_pretrained(tmp_path)
    check_weights(model, name)
    check_outputs(model, name)


def test_weights_that_are_loaded_by_hand(name):
    """As the Trainer does when it goes on from a checkpoint."""
    model = MODELS[name].from_config(MODELS[name].from_pretrained(FOLDER / name).config)
    weights = load_file(FOLDER / name / "model.safetensors")
    given = dict(weights)
    model.load_state_dict(given)
    assert given.keys() == weights.keys()
    check_weights(model, name)
    model.latent_tree.load_state_dict(
        {key.removeprefix("latent_tree."): weight for key, weight in weights.items() if key.startswith("latent_tree.")}
    )
    check_outputs(model, name)


def test_the_file_that_they_carry_finds_the_classes(name, tmp_path):
    """Where nobody has imported the package."""
    code = f"""
        import sys
        from transformers import {MODELS[name].__name__} as Auto
        assert "hf_latent" not in sys.modules
        model = Auto.from_pretrained({str(FOLDER / name)!r}, trust_remote_code=True)
        import hf_latent
        assert type(model) is getattr(hf_latent, type(model).__name__), type(model)
    """
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(hf_latent.__file__).parents[1])}
    lines = "\n".join(line.strip() for line in code.splitlines())
    run = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
