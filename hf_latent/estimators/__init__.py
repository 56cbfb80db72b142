"""How the gradient gets through the choice.

Importing this package registers every estimator. Authors of estimators find here what the estimators share: how to run the
task loss, where the gradient goes, and how to check options (`examples/custom_estimator.py` uses them).
"""

from hf_latent.estimators import (
    expected_loss,
    finite_differences,
    perturbations,
    pulled_back,
    relaxations,
    score_function,
    straight_through,
)
from hf_latent.estimators.estimator import (
    DEFAULT_ESTIMATOR,
    Estimator,
    Latent,
    TaskLoss,
    get_estimator,
    list_estimators,
    no_loss,
    register_estimator,
    surrogate_loss,
    with_gradient_of,
)
from hf_latent.estimators.functional import spigot, ste_identity
from hf_latent.estimators.task_losses import losses_of, needs_task_loss, task_loss_gradient
from hf_latent.inference.checks import check_choice, check_count, check_positive

__all__ = [
    "DEFAULT_ESTIMATOR",
    "Estimator",
    "Latent",
    "TaskLoss",
    "check_choice",
    "check_count",
    "check_positive",
    "expected_loss",
    "finite_differences",
    "get_estimator",
    "list_estimators",
    "losses_of",
    "needs_task_loss",
    "no_loss",
    "perturbations",
    "pulled_back",
    "register_estimator",
    "relaxations",
    "score_function",
    "spigot",
    "ste_identity",
    "straight_through",
    "surrogate_loss",
    "task_loss_gradient",
    "with_gradient_of",
]
