"""The options of estimators: what they are called, now and formerly, and the values that make no sense."""

from dataclasses import fields

import pytest
import torch

from hf_latent import Categorical, LatentTreeForSequenceClassification, get_estimator, list_estimators

TEMPERED = ["marginals", "sparsemap", "ste_marginals", "perturb_and_map", "perturbed_marginals", "reinmax"]


@pytest.mark.parametrize("name", TEMPERED)
@pytest.mark.parametrize("temperature", [0, -1.0, float("inf")])
def test_a_temperature_that_makes_no_sense(name, temperature):
    with pytest.raises(ValueError, match="`temperature` must be a positive, finite number"):
        get_estimator(name, temperature=temperature)


def test_a_temperature_divides_scores_wherever_an_estimator_has_one():
    """Scores and temperature times 3: the same value, and a third of the gradient."""
    with_one = {name for name in list_estimators() if "temperature" in {field.name for field in fields(get_estimator(name))}}
    assert with_one == set(TEMPERED)
    scores, goal = torch.randn(2, 3, 4, dtype=torch.float64)

    def value_and_gradient(estimator, scores):
        leaf = scores.clone().requires_grad_()
        value = estimator(Categorical(), leaf).value
        return value.detach(), torch.autograd.grad((value - goal).square().sum(), leaf)[0]

    for name in ("marginals", "sparsemap", "ste_marginals"):
        value, gradient = value_and_gradient(get_estimator(name), scores)
        same, third = value_and_gradient(get_estimator(name, temperature=3.0), 3 * scores)
        torch.testing.assert_close(same, value)
        torch.testing.assert_close(3 * third, gradient)


@pytest.mark.parametrize("name", ["blackbox", "imle"])
def test_a_saved_option_may_have_its_former_name(name):
    with pytest.warns(FutureWarning, match=f"'temperature' of estimator '{name}' is called 'noise_scale' now"):
        estimator = get_estimator(name, temperature=0.5, step_size=2.0)
    assert estimator == get_estimator(name, noise_scale=0.5, step_size=2.0)
    with pytest.raises(TypeError, match="given 'temperature' and 'noise_scale', two names of one option"):
        get_estimator(name, temperature=0.5, noise_scale=0.5)


def test_a_model_saved_with_the_former_name_loads(tiny_bert, wordpiece, tmp_path):
    options = {"noise_scale": 0.5, "step_size": 2.0}
    model = LatentTreeForSequenceClassification.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator="imle", estimator_options=options
    )
    model.save_pretrained(tmp_path)
    saved = tmp_path / "config.json"
    saved.write_text(saved.read_text().replace("noise_scale", "temperature"))
    with pytest.warns(FutureWarning, match="noise_scale"):
        loaded = LatentTreeForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.base_model.tree.estimator == get_estimator("imle", **options)


def test_other_options_that_make_no_sense():
    for name, option, message in (
        ("score_function", {"baseline": "best"}, "`baseline` must be one of 'none', 'moving_average'"),
        ("score_function", {"baseline": "leave_one_out"}, "`num_samples` must be at least 2"),
        ("score_function", {"decay": 1.0}, "`decay` must lie between 0 and 1"),
        ("perturb_and_map", {"noise": "normal"}, "`noise` must be one of 'gumbel', 'sum_of_gamma', got 'normal'"),
        ("imle", {"noise_scale": 0}, "`noise_scale` must be a positive, finite number"),
        ("spigot", {"start": "middle"}, "`start` must be one of 'argmax', 'marginals', 'zero'"),
        ("expected_loss", {"largest": 0}, "`largest` must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            get_estimator(name, **option)
    with pytest.raises(TypeError, match="'spigot_eg' has no option 'start'"):
        get_estimator("spigot_eg", start="argmax")
