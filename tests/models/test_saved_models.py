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
from hf_latent import LatentTreeForSequenceClassification, LatentTreeModel, parse

# Of format 2, in which the weights of `head_averaging` were called "heads".
FOLDER = Path(__file__).parents[1] / "saved_models"
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
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 5
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


# --- Other changes since a model was saved


@pytest.fixture
def model(tiny_bert, wordpiece):
    return LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=3, dropout=0.1)


def test_a_model_of_a_newer_format(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["format_version"] = 99
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match=r"saved by a newer hf_latent \(format 99.*pip install --upgrade hf_latent"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("options", [None, {"num_steps": 2}, {"step_size": 0.3}])
def test_models_of_format_1_go_on_with_their_step_size(tiny_bert, wordpiece, tmp_path, options):
    model = LatentTreeModel.from_encoder(tiny_bert, wordpiece, estimator="spigot_ce", estimator_options=options)
    assert model.tree.estimator.step_size == (options or {}).get("step_size", 0.1)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 1}))
    loaded = LatentTreeModel.from_pretrained(tmp_path)
    assert loaded.tree.estimator.step_size == (options or {}).get("step_size", 1.0)
    loaded.save_pretrained(tmp_path)
    assert LatentTreeModel.from_pretrained(tmp_path).tree.estimator == loaded.tree.estimator


def test_another_estimator_when_it_is_loaded(tiny_bert, wordpiece, tmp_path):
    options = {"estimator": "spigot", "estimator_options": {"step_size": 0.3}}
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, **options)
    model.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"has no option 'step_size'.*Pass `estimator_options` \(or None\)"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, estimator="marginals")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, estimator="marginals", estimator_options=None)
    assert loaded.base_model.tree.estimator.name == "marginals"


def test_the_base_model_of_a_saved_classifier_misses_nothing(model, tmp_path):
    model.save_pretrained(tmp_path)
    _, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]


def test_weights_that_are_kept_on_the_disk(model, wordpiece, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    expected = parse(model, wordpiece, ["a good film", "not a very unwatchable film , bad .", "good"])
    devices = {
        "latent_tree.encoder": "disk",
        "latent_tree.tree": "cpu",
        "latent_tree.head_averaging": "cpu",
        "latent_tree.token_kinds": "cpu",
    }
    devices |= {"decoder": "cpu", "pooling": "cpu", "classifier": "cpu"}
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", device_map=devices, offload_folder=tmp_path / "offloaded"
    )
    assert parse(loaded, wordpiece, ["a good film", "not a very unwatchable film , bad .", "good"]) == expected
