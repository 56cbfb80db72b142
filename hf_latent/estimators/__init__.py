"""How the gradient gets through the choice."""

from hf_latent.estimators import pulled_back, relaxations
from hf_latent.estimators.estimator import (
    Estimator,
    Latent,
    TaskLoss,
    get_estimator,
    list_estimators,
    register_estimator,
)
from hf_latent.estimators.straight_through import spigot, ste_identity

__all__ = [
    "Estimator",
    "Latent",
    "TaskLoss",
    "get_estimator",
    "list_estimators",
    "pulled_back",
    "register_estimator",
    "relaxations",
    "spigot",
    "ste_identity",
]
