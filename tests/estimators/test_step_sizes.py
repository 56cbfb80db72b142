"""η that need not be found by hand, and options that change in the course of a training."""

import pytest
import torch

from hf_latent import Categorical, DependencyTree, get_estimator
from hf_latent.estimators.pulled_back import AUTO_LENGTH, automatic_step_size

PULLED_BACK = ["ste_identity", "spigot", "spigot_ce", "spigot_eg"]
TREES = DependencyTree(projective=True, single_root=True)


def problem(scale: float = 1.0):
    generator = torch.Generator().manual_seed(0)
    scores, weights = (torch.randn(3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    lengths = torch.tensor([4, 3, 0])
    return scores, lengths, lambda arcs: scale * (weights.to(arcs.dtype) * arcs).flatten(1).sum(1)


def gradient_of(estimator, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    scores, lengths, task_loss = problem(scale)
    leaf = scores.requires_grad_()
    latent = estimator(TREES, leaf, lengths, lambda arcs: task_loss(arcs) + shift * arcs.flatten(1).sum(1))
    return torch.autograd.grad(latent.loss.sum(), leaf)[0]


@pytest.mark.parametrize("name", PULLED_BACK)
def test_the_scale_of_the_loss_does_not_matter(name):
    automatic = get_estimator(name, step_size="auto", num_steps=2)
    expected = gradient_of(automatic)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(gradient_of(automatic, scale=1e3), expected)
    torch.testing.assert_close(gradient_of(automatic, scale=1e-3), expected)
    by_hand = get_estimator(name, step_size=0.1, num_steps=2)
    assert not torch.allclose(gradient_of(by_hand, scale=1e3), gradient_of(by_hand))


@pytest.mark.parametrize("name", ["spigot", "spigot_ce", "spigot_eg"])
def test_what_all_heads_of_a_word_have_in_common_does_not_matter(name):
    automatic = get_estimator(name, step_size="auto")
    torch.testing.assert_close(gradient_of(automatic, shift=7.0), gradient_of(automatic), rtol=1e-4, atol=1e-5)


def test_it_goes_as_far_as_it_says():
    scores, lengths, task_loss = problem()
    scores, lengths = TREES.check(scores, lengths)
    mask = TREES.mask(scores, lengths)
    arcs = TREES.argmax(scores, lengths).requires_grad_()
    (gradient,) = torch.autograd.grad(task_loss(arcs).sum(), arcs)
    gradient = gradient.masked_fill(~mask, 0.0)
    size = automatic_step_size(TREES, gradient, mask, lengths)
    centred = gradient - (gradient.sum(2, keepdim=True) / mask.sum(2, keepdim=True).clamp(min=1))
    step = (size * centred).masked_fill(~mask, 0.0)
    assert step.square().sum().sqrt() == pytest.approx(AUTO_LENGTH * arcs.detach().square().sum().sqrt().item())
    assert automatic_step_size(TREES, torch.zeros_like(gradient), mask, lengths) == 0


@pytest.mark.parametrize("name", PULLED_BACK)
def test_it_needs_a_loss(name):
    with pytest.raises(ValueError, match="needs a `task_loss`"):
        get_estimator(name, step_size="auto")(Categorical(), torch.randn(2, 3))
    with pytest.raises(ValueError, match="positive, finite number, got 'automatic'; or 'auto'"):
        get_estimator(name, step_size="automatic")


def test_an_estimator_with_other_options():
    spigot = get_estimator("spigot", num_steps=3)
    other = spigot.with_options(step_size=0.7)
    assert (other.step_size, other.num_steps, other.inner_step, other.name) == (0.7, 3, "projected", "spigot")
    assert spigot.step_size == 0.1
    with pytest.raises(TypeError, match="'spigot' has no option 'inner_step'; it takes step_size, num_steps, start"):
        spigot.with_options(inner_step="gradient")
    with pytest.raises(ValueError, match="`step_size` must be"):
        spigot.with_options(step_size=-1.0)


@pytest.mark.parametrize("name", ["perturb_and_map", "perturbed_marginals"])
def test_noise_can_be_turned_down(name):
    scores = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    little = get_estimator(name, noise_scale=1e-6)(TREES, scores).value
    without = TREES.argmax(scores) if name == "perturb_and_map" else TREES.marginals(scores)
    torch.testing.assert_close(little, without, rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    full = get_estimator(name)(TREES, scores).value
    torch.manual_seed(0)
    assert torch.equal(get_estimator(name, noise_scale=1.0)(TREES, scores).value, full)
    assert not torch.allclose(full, without, atol=1e-2)
    with pytest.raises(ValueError, match="`noise_scale` must be"):
        get_estimator(name, noise_scale=0.0)
