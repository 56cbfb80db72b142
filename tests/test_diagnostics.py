"""The diagnostics find unbiased estimators unbiased and biased ones biased."""

import pytest
import torch

from hf_latent import Categorical, DependencyTree, Estimator, get_estimator
from hf_latent.diagnostics import compare_gradients, exact_gradient, gradient_quality, plot_gradients


def problem(structure):
    generator = torch.Generator().manual_seed(3)
    shape = (5, 3, 4) if isinstance(structure, DependencyTree) else (5, 3)
    scores, goal = torch.randn(2, *shape, generator=generator)
    return scores, lambda value: (value - goal).square().flatten(1).sum(1)


STRUCTURES = pytest.mark.parametrize(
    "structure", [Categorical(), DependencyTree(single_root=True)], ids=["categorical", "trees"]
)


@STRUCTURES
def test_the_exact_gradient(structure):
    scores, task_loss = problem(structure)
    exact = exact_gradient(structure, scores, task_loss)
    leaf = scores.clone().requires_grad_()
    vertices = structure.enumerate(3)
    probabilities = (leaf.flatten(1) @ vertices.flatten(1).T).softmax(1)
    losses = torch.stack([task_loss(vertex.expand_as(scores)) for vertex in vertices], 1)
    torch.testing.assert_close(exact, torch.autograd.grad((probabilities * losses).sum(), leaf)[0])


@STRUCTURES
def test_what_is_unbiased_and_what_is_not(structure):
    scores, task_loss = problem(structure)
    good = gradient_quality("expected_loss", structure, scores, task_loss, repeats=1)
    assert (good.cosine > 1 - 1e-6).all()
    assert (good.bias < 1e-5).all()
    sampled = gradient_quality(get_estimator("score_function", baseline="none"), structure, scores, task_loss, repeats=400)
    assert (sampled.bias < 5 * sampled.standard_error).all()
    assert (sampled.noise > 0.1).all()
    biased = gradient_quality("ste_identity", structure, scores, task_loss, repeats=1)
    assert biased.bias.max() > 0.1
    assert (biased.noise == 0).all()


class WrongSign(Estimator):
    """A bug that a user might have."""

    def __call__(self, structure, scores, lengths=None, task_loss=None):
        latent = get_estimator("expected_loss")(structure, scores, lengths, task_loss)
        return latent._replace(loss=-latent.loss)


def test_a_bug_shows():
    scores, task_loss = problem(Categorical())
    assert (gradient_quality(WrongSign(), Categorical(), scores, task_loss, repeats=1).cosine < -0.99).all()


def test_side_by_side():
    pytest.importorskip("matplotlib")
    scores, task_loss = problem(Categorical())
    names = ["expected_loss", "marginals", "spigot_ce", "perturb_and_map"]
    qualities = compare_gradients(names, Categorical(), scores, task_loss, repeats=5)
    figure = plot_gradients(qualities)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert list(compare_gradients({"mine": WrongSign()}, Categorical(), scores, task_loss, repeats=1)) == ["mine"]
