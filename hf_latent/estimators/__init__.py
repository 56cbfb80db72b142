"""How the gradient gets through the choice."""

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
    register_estimator,
)
from hf_latent.estimators.functional import spigot, ste_identity

__all__ = [
    "DEFAULT_ESTIMATOR",
    "Estimator",
    "Latent",
    "TaskLoss",
    "expected_loss",
    "finite_differences",
    "get_estimator",
    "list_estimators",
    "perturbations",
    "pulled_back",
    "register_estimator",
    "relaxations",
    "score_function",
    "spigot",
    "ste_identity",
    "straight_through",
]
