"""Surrogate gradients against their formulas, computed from enumerated trees, and what they must not depend on."""

import ast
import importlib
from pathlib import Path

import brute_force
import pytest
import torch

from hf_latent import (
    Categorical,
    DependencyTree,
    estimators,
    get_estimator,
    list_estimators,
    register_estimator,
    spigot,
    ste_identity,
)
from hf_latent.estimators import Estimator

PULLED_BACK = ["ste_identity", "spigot", "spigot_ce", "spigot_eg"]
TREE = DependencyTree(projective=True, single_root=True)
N = 4


def problem(batch=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(batch, N, N + 1, dtype=dtype, generator=generator)
    goal = torch.rand(batch, N, N + 1, dtype=dtype, generator=generator)
    weights = torch.rand(batch, N, N + 1, dtype=dtype, generator=generator)

    def task_loss(value):
        return (weights * (value - goal) ** 2).sum((1, 2))

    def gradient(value):
        return 2 * weights * (value - goal)

    return scores, task_loss, gradient


def surrogate(estimator, structure, scores, lengths, task_loss):
    scores = scores.detach().requires_grad_()
    latent = estimator(structure, scores, lengths, task_loss)
    assert torch.equal(latent.loss, torch.zeros_like(latent.loss))
    (gradient,) = torch.autograd.grad(latent.loss.sum(), scores)
    return latent.value, gradient


def by_enumeration(name, scores, gradient, step_size, num_steps, tree):
    """μ⁰ - μᵏ of Algorithm 1, with MAP, Marg and Π_M from the list of all trees of one row."""
    vertices, _ = brute_force.tree_scores(scores[0], tree.projective, tree.single_root)

    def values(s):
        return (vertices * s).sum((1, 2))

    def marginals(s):
        return torch.einsum("t,tij->ij", values(s).softmax(0), vertices)

    s = scores[0]
    start = vertices[values(s).argmax()] if name in ("ste_identity", "spigot") else marginals(s)
    guess = start
    for _ in range(num_steps):
        step = step_size * gradient(guess[None])[0]
        if name == "spigot_eg":
            s = s - step
            guess = marginals(s)
        elif name == "ste_identity":
            guess = guess - step
        else:
            guess = brute_force.project(guess - step, vertices)
    return start - guess


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("name", PULLED_BACK)
def test_surrogate_gradient_is_its_formula(tree, name, num_steps):
    scores, task_loss, gradient = problem(batch=1)
    estimator = get_estimator(name, step_size=0.3, num_steps=num_steps)
    value, ours = surrogate(estimator, tree, scores, None, task_loss)
    expected = by_enumeration(name, scores, gradient, 0.3, num_steps, tree)
    expected = expected * tree.mask(scores, torch.tensor([N]))[0]  # arcs that do not exist have no gradient
    torch.testing.assert_close(ours[0], expected, rtol=0, atol=2e-5)
    assert torch.equal(value, tree.argmax(scores))


@pytest.mark.parametrize("name", PULLED_BACK)
def test_surrogate_gradient_on_categories(name):
    """The unstructured case, Eqs. 12, 15, 16 and 20, in closed form."""
    import entmax

    scores, weights = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    _, ours = surrogate(get_estimator(name, step_size=0.7), Categorical(), scores, None, lambda value: (value * weights).sum(1))
    vertex, softmax = torch.nn.functional.one_hot(scores.argmax(1), 4).double(), scores.softmax(1)
    expected = {
        "ste_identity": 0.7 * weights,
        "spigot": vertex - entmax.sparsemax(vertex - 0.7 * weights, dim=1),
        "spigot_ce": softmax - entmax.sparsemax(softmax - 0.7 * weights, dim=1),
        "spigot_eg": softmax - (scores - 0.7 * weights).softmax(1),
    }[name]
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("name", "function"), [("ste_identity", ste_identity), ("spigot", spigot)])
def test_one_step_functions_equal_the_estimators(tree, name, function):
    """Where the gradient that arrives is that of each example's own loss, the two are the same."""
    scores, task_loss, _ = problem()
    value, expected = surrogate(get_estimator(name, step_size=0.3), tree, scores, None, task_loss)
    scores.requires_grad_()
    ours = function(tree, scores, None, 0.3)
    assert torch.equal(ours, value)
    (gradient,) = torch.autograd.grad(task_loss(ours).sum(), scores)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PULLED_BACK)
def test_gradient_does_not_depend_on_batch_or_padding(name):
    """Each row alone, together, and together with longer sentences around it."""
    estimator = get_estimator(name, step_size=0.5)
    scores, lengths = torch.randn(3, 6, 7, dtype=torch.float64), torch.tensor([6, 4, 3])
    goal = torch.rand(3, 6, 7, dtype=torch.float64)
    _, together = surrogate(estimator, TREE, scores, lengths, lambda value: (value - goal).square().sum((1, 2)))
    for row, n in enumerate(lengths.tolist()):
        part, own_goal = scores[row : row + 1, :n, : n + 1], goal[row : row + 1, :n, : n + 1]
        _, alone = surrogate(
            estimator, TREE, part, None, lambda value, own_goal=own_goal: (value - own_goal).square().sum((1, 2))
        )
        torch.testing.assert_close(together[row, :n, : n + 1], alone[0], rtol=0, atol=1e-5)
        assert (together[row, n:] == 0).all()
        assert (together[row, :, n + 1 :] == 0).all()


@pytest.mark.parametrize("name", PULLED_BACK)
@pytest.mark.parametrize("scale", [2.0**16, 1 / 8])
def test_gradient_scales_with_the_loss_as_any_gradient(name, scale):
    """fp16-style loss scaling, gradient accumulation and means over the batch are factors on the outside, no more."""
    scores, task_loss, _ = problem()
    scores.requires_grad_()
    loss = get_estimator(name)(TREE, scores, None, task_loss).loss
    (plain,) = torch.autograd.grad(loss.sum(), scores, retain_graph=True)
    (scaled,) = torch.autograd.grad(scale * loss.sum(), scores)
    torch.testing.assert_close(scaled, scale * plain)


@pytest.mark.parametrize("name", PULLED_BACK)
def test_inner_steps_see_the_dropout_of_the_forward_pass(name):
    dropout = torch.nn.Dropout(0.5)
    masks = []

    def task_loss(value):
        mask = dropout(torch.ones(3, N, N + 1))
        masks.append(mask)
        return (value * mask).sum((1, 2))

    latent = get_estimator(name, num_steps=2)(TREE, torch.randn(3, N, N + 1, requires_grad=True), None, task_loss)
    task_loss(latent.value)
    assert len(masks) == 3
    assert 0 < masks[0].eq(0).float().mean() < 1
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", ["marginals", "sparsemap"])
def test_relaxations_have_their_exact_gradient(tree, name):
    scores, task_loss, _ = problem()
    estimator = get_estimator(name, **({"tol": 1e-10} if name == "sparsemap" else {}))

    def relaxed_loss(s):
        latent = estimator(tree, s, None, task_loss)
        return task_loss(latent.value) + latent.loss

    assert torch.autograd.gradcheck(relaxed_loss, (scores.requires_grad_(),))


@pytest.mark.parametrize("name", ["marginals", "sparsemap", *PULLED_BACK])
def test_evaluation_gives_the_choice_or_the_relaxation(name):
    scores = torch.randn(2, N, N + 1)
    expected = getattr(TREE, name if name in ("marginals", "sparsemap") else "argmax")(scores)
    torch.testing.assert_close(get_estimator(name).evaluate(TREE, scores), expected, rtol=0, atol=1e-2)


def test_a_tiny_gradient_is_not_lost_to_rounding():
    """γ of 1e-7 moves a vertex by about as little as float32 can tell; the direction is still right."""
    scores = torch.randn(1, N, N + 1)
    weights = torch.randn(1, N, N + 1)
    for name in PULLED_BACK:
        _, large = surrogate(get_estimator(name), TREE, scores, None, lambda v: 1e-4 * (v * weights).sum((1, 2)))
        _, small = surrogate(get_estimator(name), TREE, scores, None, lambda v: 1e-7 * (v * weights).sum((1, 2)))
        cosine = torch.nn.functional.cosine_similarity(large.flatten(), 1e3 * small.flatten(), dim=0)
        assert cosine > 0.999, name


def test_without_task_loss_the_one_step_estimators_fall_back_and_the_others_say_so():
    scores = torch.randn(2, N, N + 1, requires_grad=True)
    weights = torch.randn(2, N, N + 1)
    for name in ("ste_identity", "spigot"):
        latent = get_estimator(name)(TREE, scores)
        (gradient,) = torch.autograd.grad((latent.value * weights).sum(), scores)
        assert gradient.abs().sum() > 0
    for name, options in (("spigot_ce", {}), ("spigot_eg", {}), ("spigot", {"num_steps": 2})):
        with pytest.raises(ValueError, match="needs a `task_loss`"):
            get_estimator(name, **options)(TREE, scores)


def test_registry():
    assert {"marginals", "sparsemap", *PULLED_BACK} < set(list_estimators())
    assert list_estimators() == sorted(list_estimators())
    with pytest.raises(ValueError, match=r"Unknown estimator 'spiggot'.*spigot"):
        get_estimator("spiggot")
    with pytest.raises(TypeError, match="'marginals' has no option 'step_size'; it takes temperature"):
        get_estimator("marginals", step_size=1.0)
    with pytest.raises(TypeError, match="'identity_with_projection' has no option 'step_size'; it takes none"):
        get_estimator("identity_with_projection", step_size=1.0)
    with pytest.raises(TypeError, match="has no option 'loss'; it takes step_size, num_steps, start"):
        get_estimator("spigot", loss="cross_entropy")

    class Again(Estimator):
        def __call__(self, structure, scores, lengths=None, task_loss=None):
            raise AssertionError

    with pytest.raises(ValueError, match="'spigot' is registered already"):
        register_estimator("spigot")(Again)


def test_what_authors_of_estimators_need_is_public_and_enough():
    for name in estimators.__all__:
        assert hasattr(estimators, name)
        assert name in ("DEFAULT_ESTIMATOR", "TaskLoss") or getattr(estimators, name).__doc__, name
    example = ast.parse((Path(__file__).parents[2] / "examples" / "custom_estimator.py").read_text())
    for node in ast.walk(example):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("hf_latent"):
            assert node.module in ("hf_latent", "hf_latent.estimators", "hf_latent.diagnostics")
            module = importlib.import_module(node.module)
            assert all(alias.name in getattr(module, "__all__", dir(module)) for alias in node.names)


@pytest.mark.parametrize("step_size", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_step_size_must_be_positive(step_size):
    with pytest.raises(ValueError, match=r"`step_size` must be a positive, finite number, got"):
        get_estimator("spigot", step_size=step_size)
    with pytest.raises(ValueError, match=r"`step_size` must be a positive"):
        ste_identity(TREE, torch.randn(1, 2, 3), None, step_size)


@pytest.mark.parametrize("num_steps", [0, -1, 1.5, True])
def test_num_steps_must_be_a_count(num_steps):
    with pytest.raises(ValueError, match=r"`num_steps` must be an integer of at least 1, got"):
        get_estimator("spigot", num_steps=num_steps)


def test_task_loss_must_be_per_example_and_use_its_argument():
    scores = torch.randn(2, N, N + 1, requires_grad=True)
    estimator = get_estimator("spigot")
    with pytest.raises(ValueError, match=r"one of each|loss of each example, shape \(2,\), got shape \(\)"):
        estimator(TREE, scores, None, lambda value: value.sum())
    with pytest.raises(ValueError, match="must depend on the value"):
        estimator(TREE, scores, None, lambda value: torch.zeros(2))
    with pytest.raises(ValueError, match="must depend on the value"):
        estimator(TREE, scores, None, lambda value: scores.sum((1, 2)))
    for name in PULLED_BACK:
        with pytest.raises(ValueError, match=r"gradient of `task_loss` must be finite"):
            get_estimator(name)(TREE, scores, None, lambda value: value.sum((1, 2)) * float("nan"))
