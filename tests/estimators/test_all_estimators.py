"""Every other estimator: unbiased ones against the enumerated gradient, and bad options. (Formulas: tests/structures.)"""

import itertools
from dataclasses import dataclass

import brute_force
import pytest
import torch
from torch import Tensor

from hf_latent import Categorical, DependencyTree, get_estimator
from hf_latent.estimators.perturbations import GAMMA_TERMS, draw_noise

CATEGORICAL = Categorical()
TREE = DependencyTree(projective=False)


def problem(structure, batch=3, size=4):
    event = (size,) if structure is CATEGORICAL else (size, size + 1)
    generator = torch.Generator().manual_seed(2)
    scores, goal, weights = (torch.randn(batch, *event, generator=generator, dtype=torch.float64) for _ in range(3))

    def task_loss(value):
        return (weights.exp() * (value - goal).square()).flatten(1).sum(1)

    return scores, task_loss, lambda value: 2 * weights.exp() * (value - goal)


def noise_of(distribution, structure, scores, lengths=None):
    return draw_noise(distribution, structure, *structure.check(scores, lengths))


def surrogate(estimator, structure, scores, task_loss, lengths=None, state=None):
    """The value, and the gradient that arrives at the scores in training."""
    scores = scores.detach().requires_grad_()
    latent = estimator.resume(structure, scores, lengths, task_loss, state)
    loss = (task_loss(latent.value) + latent.loss).sum()
    return latent.value.detach(), torch.autograd.grad(loss, scores)[0]


def exact_gradient(structure, scores, task_loss):
    """∇ Σ_z p(z) L(z), by enumeration of the trees (or categories) of the first row."""
    vertices = torch.eye(scores.shape[1], dtype=torch.float64)
    if structure is not CATEGORICAL:
        vertices = brute_force.trees(scores.shape[1], structure.projective, structure.single_root)
    leaf = scores[:1].detach().requires_grad_()
    probabilities = (vertices * leaf).flatten(1).sum(1).softmax(0)
    losses = torch.stack([task_loss(z.expand_as(scores))[0] for z in vertices])
    return torch.autograd.grad((probabilities * losses).sum(), leaf)[0]


STRUCTURES = pytest.mark.parametrize("structure", [CATEGORICAL, TREE], ids=["categorical", "trees"])


def test_gumbel_noise_makes_the_argmax_a_sample():
    scores = torch.tensor([[1.0, 0.0, -1.0, 2.0]]).expand(20_000, 4)
    value, _ = surrogate(get_estimator("perturb_and_map"), CATEGORICAL, scores, lambda value: value.sum(1))
    assert torch.equal(value.sum(1), torch.ones(20_000))
    torch.testing.assert_close(value.mean(0), scores[0].softmax(0), rtol=0, atol=0.02)


def test_sum_of_gamma_noise_is_gumbel_over_a_whole_structure():
    """Mean and variance of the total over the parts of a tree: Σ 1/i - log s, and Σ 1/i² of s terms (Niepert et al. 2021)."""
    scores = torch.zeros(20_000, 4, 5, dtype=torch.float64)
    noise = noise_of("sum_of_gamma", TREE, scores)
    totals = noise[:, torch.arange(4), 0]  # the four arcs of one tree
    terms = torch.arange(1, GAMMA_TERMS + 1, dtype=torch.float64)
    mean, variance = (1 / terms).sum() - torch.log(terms[-1]), (1 / terms**2).sum()
    assert abs(totals.sum(1).mean() - mean) < 0.05
    assert abs(totals.sum(1).var() - variance) < 0.1
    assert (noise_of("sum_of_gamma", TREE, scores, torch.full((20_000,), 2))[:, 2:] == 0).all()


@STRUCTURES
@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "none"},
        {"baseline": "self_critical"},
        {"baseline": "leave_one_out", "num_samples": 3},
        {"baseline": "moving_average", "num_samples": 2},
    ],
    ids=lambda options: options["baseline"],
)
def test_the_score_function_is_unbiased(structure, options):
    """Its mean over many draws is within five standard errors of the enumerated gradient, in every coordinate."""
    draws = 20_000
    scores, task_loss, _ = problem(structure, batch=1, size=3)
    many = scores.expand(draws, *scores.shape[1:])
    estimator = get_estimator("score_function", **options)
    # A first batch, for the moving average.
    state = estimator.resume(structure, many, None, task_loss, estimator.initial_state()).state
    _, ours = surrogate(estimator, structure, many, task_loss, state=state)
    exact = exact_gradient(structure, scores, task_loss)[0]
    standard_error = ours.std(0) / draws**0.5 + 1e-9
    assert ((ours.mean(0) - exact).abs() < 5 * standard_error).all()
    assert ours.mean(0).abs().max() > 10 * standard_error.max(), "the test could not tell this gradient from 0"


def test_baselines_lower_the_variance():
    scores, task_loss, _ = problem(TREE, batch=1)
    many = scores.expand(5000, 4, 5)

    def variance(**options):
        estimator = get_estimator("score_function", **options)
        state = estimator.resume(TREE, many, None, lambda value: task_loss(value) + 30, estimator.initial_state()).state
        return surrogate(estimator, TREE, many, lambda value: task_loss(value) + 30, state=state)[1].var(0).sum()

    none = variance(baseline="none")
    assert variance(baseline="moving_average") < none / 5
    assert variance(baseline="self_critical") < none / 5
    assert variance(baseline="leave_one_out", num_samples=2) < none / 5


@STRUCTURES
def test_the_expected_loss_is_exact(structure):
    scores, task_loss, _ = problem(structure, batch=1, size=3)
    leaf, scale = scores.clone().requires_grad_(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def scaled_loss(value):
        return scale * task_loss(value)

    latent = get_estimator("expected_loss")(structure, leaf, None, scaled_loss)
    total = (scaled_loss(latent.value) + latent.loss).sum()
    gradient, of_decoder = torch.autograd.grad(total, (leaf, scale))
    torch.testing.assert_close(gradient, exact_gradient(structure, scores, task_loss))
    # The decoder minimizes the expected loss as well, which is linear in its one parameter.
    torch.testing.assert_close(of_decoder, total.detach())


def test_the_expected_loss_of_too_many_structures_is_an_error():
    scores, task_loss, _ = problem(TREE)
    with pytest.raises(ValueError, match=r"there are 125, more than `largest` \(100\). Use 'score_function'"):
        get_estimator("expected_loss", largest=100)(TREE, scores, None, task_loss)


@STRUCTURES
def test_identity_with_projection_ignores_shift_and_scale(structure):
    scores, task_loss, gradient = problem(structure)
    estimator = get_estimator("identity_with_projection")
    value, ours = surrogate(estimator, structure, scores, task_loss)
    mask = structure.mask(scores, torch.full((3,), 4))
    gammas = gradient(value)
    for group in itertools.product(*[range(size) for size in scores.shape[:-1]]):  # the heads of a word, or all categories
        own, gamma = scores[group][mask[group]], gammas[group][mask[group]]
        centred, gamma = own - own.mean(), gamma - gamma.mean()
        deviation = own.std(unbiased=False)
        # The Jacobian of (s - mean) / deviation: a projection onto what is orthogonal to 1 and to s, over the deviation.
        expected = (gamma - centred * (centred @ gamma) / (centred @ centred)) / deviation
        torch.testing.assert_close(ours[group][mask[group]], expected)
    assert ours[~mask].count_nonzero() == 0
    shifted, _ = surrogate(estimator, structure, 3 * scores + 5, task_loss)
    assert torch.equal(shifted, value)


@dataclass(frozen=True)
class Fixed(Categorical):
    """Draws the category that it is told to."""

    category: int = 0

    def sample(self, scores: Tensor, lengths=None, num_samples=1, generator=None) -> Tensor:
        return torch.nn.functional.one_hot(torch.full(scores.shape[:1], self.category), scores.shape[1])[None].to(scores)


def test_reinmax_in_closed_form_and_exact_for_quadratic_losses():
    scores, _, _ = problem(CATEGORICAL, batch=1)
    goal = torch.randn(1, 4, dtype=torch.float64)

    def quadratic(value):
        return (value - goal).square().sum(1) + value[:, 0] * value[:, 1]

    p, mean = scores.softmax(1)[0], torch.zeros(1, 4, dtype=torch.float64)
    for category in range(4):
        value, ours = surrogate(get_estimator("reinmax"), Fixed(category), scores, quadratic)
        leaf = value.clone().requires_grad_()
        gamma = torch.autograd.grad(quadratic(leaf).sum(), leaf)[0][0]
        mixed = (p + value[0]) / 2
        jacobians = [torch.diag(q) - torch.outer(q, q) for q in (mixed, p)]
        torch.testing.assert_close(ours[0], 2 * jacobians[0] @ gamma - jacobians[1] @ gamma / 2)
        mean += p[category] * ours
    torch.testing.assert_close(mean, exact_gradient(CATEGORICAL, scores, quadratic))


def test_reinmax_on_trees_is_an_error():
    with pytest.raises(ValueError, match="'reinmax' is defined for one choice among k"):
        get_estimator("reinmax")(TREE, torch.randn(1, 2, 3))


@pytest.mark.parametrize("name", ["blackbox", "expected_loss", "imle", "score_function"])
def test_a_missing_task_loss_is_named(name):
    with pytest.raises(ValueError, match=f"Estimator '{name}' needs a `task_loss`"):
        get_estimator(name)(TREE, torch.randn(1, 2, 3))
