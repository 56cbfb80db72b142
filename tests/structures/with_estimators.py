"""Every estimator on the structure: what the decoder sees, the gradient, and the formulas of those that have one."""

import pytest
import torch

from hf_latent import Categorical, get_estimator, list_estimators
from hf_latent.estimators.perturbations import draw_noise
from structures.problems import Problem, Suite, is_among, project

close = torch.testing.assert_close
PULLED_BACK = ("ste_identity", "spigot", "spigot_ce", "spigot_eg")
SOFT = ("marginals", "sparsemap", "perturbed_marginals")  # the decoder sees a point, not a structure
# Every estimator, and those that have a temperature or a scale of their noise at three of them.
SCALES = {
    name: [one for one in ("temperature", "noise_scale") if hasattr(get_estimator(name), one)] for name in list_estimators()
}
EXTREMES = [
    (name, options)
    for name, scales in SCALES.items()
    for options in ([dict.fromkeys(scales, scale) for scale in (1e-3, 1.0, 1e3)] if scales else [{}])
]
GOAL, WEIGHT = 0.3, 1.7


def task_loss(value: torch.Tensor) -> torch.Tensor:
    """A loss that tells parts from each other."""
    parts = torch.arange(value[0].numel(), dtype=value.dtype).view(value.shape[1:])
    return (WEIGHT * (value - GOAL).square() + (parts.cos() * 2 * value)).flatten(1).sum(1)


def task_gradient(value: torch.Tensor) -> torch.Tensor:
    parts = torch.arange(value[0].numel(), dtype=value.dtype).view(value.shape[1:])
    return 2 * WEIGHT * (value - GOAL) + 2 * parts.cos()


def surrogate(estimator, problem: Problem, scores: torch.Tensor | None = None, loss=task_loss):
    """The value, and the gradient that arrives at the scores in training; seeded."""
    torch.manual_seed(3)
    leaf = (problem.scores if scores is None else scores).clone().requires_grad_()
    latent = estimator(problem.structure, leaf, problem.lengths, loss)
    (gradient,) = torch.autograd.grad((loss(latent.value) + latent.loss).sum(), leaf)
    return latent.value.detach(), gradient, latent.loss.detach()


class WithEstimators(Suite):
    @pytest.mark.parametrize("name", list_estimators())
    def test_no_decoder_sees_what_cannot_be(self, problem: Problem, name):
        """Nor is there a gradient; each decoder sees a point of the polytope; the loss is one for each example."""
        if name == "reinmax" and not isinstance(self.structure, Categorical):
            with pytest.raises(ValueError, match="'reinmax' is defined for one choice among k"):
                get_estimator(name)(self.structure, problem.scores, problem.lengths, task_loss)
            return
        seen = []

        def watched(value):
            seen.append(value.detach())
            return task_loss(value)

        value, gradient, loss = surrogate(get_estimator(name), problem, loss=watched)
        assert value.shape == problem.scores.shape
        assert loss.shape == (len(value),)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient.count_nonzero() > 0
        for point in (value, gradient, *seen):
            assert point[~problem.left].count_nonzero() == 0
        for row, own in enumerate(problem.vertices):
            if name in SOFT:
                close(value[row], project(value[row], own), rtol=0, atol=1e-6)
            else:
                assert is_among(value[row], own)
        if problem.forbidden.any():  # whatever says so
            infinite = problem.scores.masked_fill(problem.forbidden, -torch.inf)
            expected = surrogate(get_estimator(name), problem, infinite)
            assert torch.equal(value, expected[0])
            assert torch.equal(gradient, expected[1])

    @pytest.mark.parametrize(("name", "options"), EXTREMES, ids=str)
    def test_dtypes_and_extreme_temperatures(self, plain: Problem, name, options):
        if name == "reinmax" and not isinstance(self.structure, Categorical):
            pytest.skip("is defined for one choice among k")
        estimator = get_estimator(name, **options)
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            value, gradient, _ = surrogate(estimator, plain, (10 * plain.scores).to(dtype))
            assert value.dtype == gradient.dtype == dtype
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            if name not in SOFT:
                assert set(value.unique().tolist()) <= {0.0, 1.0}

    @pytest.mark.parametrize("name", PULLED_BACK)
    def test_pulled_back_gradients_are_their_formulas(self, problem: Problem, name):
        """Algorithm 1 of the paper, with MAP, Marg and Π_M from the list of all structures."""
        self.check_formula(problem, name, 1)
        self.check_formula(problem, name, 3)

    @pytest.mark.parametrize("start", ["argmax", "marginals", "zero"])
    @pytest.mark.parametrize("name", ["ste_identity", "spigot", "spigot_ce"])
    def test_the_start_of_the_inner_steps_can_be_chosen(self, masked: Problem, name, start):
        """The gradient is that of the intermediate loss at μᵏ, wherever the steps began (paper, section 5)."""
        self.check_formula(masked, name, 1, start)
        self.check_formula(masked, name, 3, start)

    def check_formula(self, problem: Problem, name: str, num_steps: int, start: str | None = None) -> None:
        options = {"step_size": 0.2, "num_steps": num_steps, **({} if start is None else {"start": start})}
        value, ours, loss = surrogate(get_estimator(name, **options), problem)
        best = problem.best(problem.clean)
        points = {"argmax": best, "marginals": problem.mean(problem.clean), "zero": torch.zeros_like(best)}
        own_point = "argmax" if name in ("ste_identity", "spigot") else "marginals"
        guess, scores = points[start or own_point], problem.clean
        for _ in range(num_steps):
            step = 0.2 * task_gradient(guess).masked_fill(~problem.left, 0.0)
            if name == "spigot_eg":
                scores = scores - step
                guess = problem.mean(scores)
            else:
                guess = guess - step if name == "ste_identity" else problem.projection(guess - step)
        assert torch.equal(value, best)
        assert loss.count_nonzero() == 0
        close(ours, points[own_point] - guess, rtol=0, atol=5e-3 if name in ("spigot", "spigot_ce") else 1e-7)

    @pytest.mark.parametrize("temperature", [0.5, 2.0])
    def test_relaxations_and_their_gradients(self, problem: Problem, temperature):
        """Marg(s / T) with its exact gradient, also where the decoder sees the choice (`ste_marginals`)."""
        clean = problem.clean.clone().requires_grad_()
        mean = problem.mean(clean / temperature)
        best = self.structure.argmax(problem.scores, problem.lengths)
        for name, expected in (("marginals", mean.detach()), ("ste_marginals", best)):
            value, ours, _ = surrogate(get_estimator(name, temperature=temperature), problem)
            close(value, expected)
            (exact,) = torch.autograd.grad(mean, clean, task_gradient(expected), retain_graph=True)
            close(ours, exact.masked_fill(~problem.left, 0.0), rtol=1e-6, atol=1e-8)
        value, _, _ = surrogate(get_estimator("sparsemap", temperature=temperature, tol=1e-12), problem)
        close(value, problem.projection(problem.clean / temperature), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("noise", ["gumbel", "sum_of_gamma"])
    def test_perturbations(self, problem: Problem, noise):
        """The same noise added by hand."""
        torch.manual_seed(3)
        drawn = draw_noise(noise, self.structure, problem.scores, problem.lengths)
        assert drawn[~self.structure.mask(*self.structure.check(problem.scores, problem.lengths))].count_nonzero() == 0
        moved = (problem.clean + drawn.masked_fill(~problem.left, 0.0)).requires_grad_()
        mean = problem.mean(moved / 0.7)
        best = problem.best(moved)
        for name, expected in (("perturb_and_map", best), ("perturbed_marginals", mean.detach())):
            value, ours, _ = surrogate(get_estimator(name, noise=noise, temperature=0.7), problem)
            close(value, expected)
            (exact,) = torch.autograd.grad(mean, moved, task_gradient(expected), retain_graph=True)
            close(ours, exact.masked_fill(~problem.left, 0.0), rtol=1e-6, atol=1e-8)
        evaluated = get_estimator("perturbed_marginals", temperature=0.7).evaluate(
            self.structure, problem.scores, problem.lengths
        )
        close(evaluated, problem.mean(problem.clean / 0.7))

    def test_differences_of_two_choices(self, problem: Problem):
        torch.manual_seed(3)
        drawn = draw_noise("sum_of_gamma", self.structure, problem.scores, problem.lengths).masked_fill(~problem.left, 0.0)
        for name, options, moved in (
            ("blackbox", {"step_size": 2.0}, problem.clean),
            ("imle", {"step_size": 2.0, "noise_scale": 0.5}, problem.clean + 0.5 * drawn),
        ):
            value, ours, _ = surrogate(get_estimator(name, **options), problem)
            best, target = (problem.best(scores) for scores in (moved, moved - 2 * task_gradient(value)))
            assert torch.equal(value, best)
            close(ours, (best - target) / 2)

    def test_expected_loss(self, problem: Problem):
        clean = problem.clean.clone().requires_grad_()
        expected = torch.stack(
            [(logs.exp() * task_loss(own)).sum() for own, logs in zip(problem.vertices, problem.logs(clean), strict=True)]
        )
        value, ours, loss = surrogate(get_estimator("expected_loss"), problem)
        close(task_loss(value) + loss, expected.detach(), rtol=1e-5, atol=1e-5)
        (exact,) = torch.autograd.grad(expected.sum(), clean)
        close(ours, exact.masked_fill(~problem.left, 0.0), rtol=1e-5, atol=1e-5)

    def test_one_step_functions_without_a_task_loss(self, masked: Problem):
        """Where the gradient that arrives is that of each example's own loss, the two are the same."""
        for name in ("ste_identity", "spigot"):
            estimator = get_estimator(name, step_size=0.3)
            _, expected, _ = surrogate(estimator, masked)
            leaf = masked.scores.clone().requires_grad_()
            value = estimator(self.structure, leaf, masked.lengths).value
            (gradient,) = torch.autograd.grad(task_loss(value).sum(), leaf)
            close(gradient, expected, rtol=0, atol=1e-6)
