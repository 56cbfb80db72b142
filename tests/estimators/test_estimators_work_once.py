"""What an estimator asks for twice, it pays for twice: checks, masks and log-partitions are counted."""

import functools
import sys
from collections import Counter
from collections.abc import Generator

import pytest
import torch

from hf_latent import Categorical, DependencyTree, Independent, Structure, get_estimator, list_estimators, spigot, ste_identity
from hf_latent.diagnostics import exact_gradient
from hf_latent.structures.declared import DeclaredStructure

STRUCTURES = {
    "categorical": (Categorical(), (3, 4)),
    "trees": (DependencyTree(), (3, 3, 4)),
    "several trees": (Independent(DependencyTree()), (3, 2, 2, 3)),
}
OPTIONS = {"score_function": {"num_samples": 3}, "ste_identity": {"num_steps": 2}, "spigot": {"num_steps": 2}}


class Calls:
    """Counts calls of structures.

    Attributes:
        direct: of methods, from outside of structures.
        all: of methods, also from within others.
        tests: of values, outside of structures or in a `check` that was called from there.
    """

    def __init__(self, monkeypatch):
        self.direct, self.all, self.tests, self.running = Counter(), Counter(), Counter(), []
        for cls in (Structure, DeclaredStructure, Categorical, DependencyTree, Independent):
            for name, function in list(vars(cls).items()):
                if callable(function) and not name.startswith("__") and not isinstance(function, type):
                    monkeypatch.setattr(cls, name, self.counted(name, function))
        for module in [module for name, module in sys.modules.items() if name.startswith("hf_latent.")]:
            for name in ("check_finite", "checked_values"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, self.test(name, getattr(module, name)))

    def counted(self, name, function):
        @functools.wraps(function)
        def call(*arguments, **named):
            self.all[name] += 1
            self.direct[name] += not self.running
            self.running.append(name)
            try:
                result = function(*arguments, **named)
                return iter(list(result)) if isinstance(result, Generator) else result  # all of its work within this call
            finally:
                self.running.pop()

        return call

    def test(self, name, function):
        @functools.wraps(function)
        def call(*arguments, **named):
            self.tests[name] += not self.running or self.running[0] == "check"
            return function(*arguments, **named)

        return call


@pytest.fixture
def calls(monkeypatch):
    return Calls(monkeypatch)


def problem(structure, forbid=False):
    structure, shape = STRUCTURES[structure]
    scores, goal = torch.randn(2, *shape)
    if forbid:
        scores.view(shape[0], -1)[0, 2] = -torch.inf
    return structure, scores.requires_grad_(), lambda value: (value - goal).square().flatten(1).sum(1)


def assert_once(calls):
    assert calls.direct["check"] <= 1
    assert calls.direct["mask"] + calls.direct["positions"] <= 1
    assert calls.tests["checked_values"] <= 1
    assert calls.tests["check_finite"] <= 1


@pytest.mark.parametrize("forbid", [False, True], ids=["all allowed", "one forbidden"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", list_estimators())
def test_an_estimator_checks_once_and_makes_one_mask(calls, name, structure, forbid):
    if name == "reinmax" and structure != "categorical":
        pytest.skip("one choice among k only")
    structure, scores, task_loss = problem(structure, forbid)
    latent = get_estimator(name, **OPTIONS.get(name, {}))(structure, scores, None, task_loss)
    assert calls.direct.total() > 0
    assert_once(calls)
    (latent.loss + task_loss(latent.value)).sum().backward()
    assert_once(calls)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("function", [ste_identity, spigot])
def test_so_do_the_functions(calls, function, structure):
    structure, scores, task_loss = problem(structure)
    task_loss(function(structure, scores)).sum().backward()
    assert calls.direct["check"] == calls.direct["mask"] == 1
    assert_once(calls)


@pytest.mark.parametrize("name", list_estimators())
def test_an_evaluation_checks_once(calls, name):
    structure, scores, _ = problem("trees")
    get_estimator(name).evaluate(structure, scores)
    assert_once(calls)


@pytest.mark.parametrize("structure", ["categorical", "trees"])
@pytest.mark.parametrize(("name", "options"), [("score_function", {"num_samples": 5}), ("expected_loss", {})])
def test_one_log_partition_serves_all_samples_and_all_structures(calls, name, options, structure):
    structure, scores, task_loss = problem(structure)
    get_estimator(name, **options)(structure, scores, None, task_loss).loss.sum().backward()
    assert calls.all["_log_partition"] == 1
    assert calls.direct["log_prob"] == 1


@pytest.mark.parametrize("structure", ["categorical", "trees"])
def test_one_log_partition_serves_the_exact_gradient(calls, structure):
    structure, scores, task_loss = problem(structure)
    exact_gradient(structure, scores, task_loss)
    assert calls.all["_log_partition"] == 1


def test_the_gradient_in_half_precision_is_rounded_once():
    """One derivative of one log-partition: no sum of a hundred rounded ones."""
    scores, goal = torch.randn(2, 3, 4, 5)
    scores = scores.bfloat16()

    def gradient(scores):
        leaf = scores.clone().requires_grad_()

        def task_loss(value):
            return (value.double() - goal).square().flatten(1).sum(1)

        return torch.autograd.grad(get_estimator("expected_loss")(DependencyTree(), leaf, None, task_loss).loss.sum(), leaf)[0]

    exact = gradient(scores.double())
    assert ((gradient(scores).double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()
