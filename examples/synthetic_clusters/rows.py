"""The rows of the paper's Table 2, its figures, and the settings that it names."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from clusters import DATA_SEED, PULLED_BACK, Protocol
from training import STEPS

CLUSTERS = (3, 10)
# The seeds that the paper's code would count up from for several starts; the first four are as many as the paper has.
STARTS = list(range(301, 313))
FEW = 4
LEARNING_RATES, STEP_SIZES = (1e-4, 1e-3, 2e-3), (0.1, 1.0, 2.0)


class Setting(NamedTuple):
    """A learning rate, and η for estimators that have it."""

    learning_rate: float
    step_size: float | None = None

    def __str__(self) -> str:
        return f"{1000 * self.learning_rate:g}" + ("" if self.step_size is None else f", {self.step_size:g}")


@dataclass(frozen=True, eq=False)
class Row:
    """A row of Table 2.

    Attributes:
        options: of the estimator, but for η.
        paper: accuracy and V-measure for 3 and for 10 clusters, each with its standard error.
        script: the settings for 3 and for 10 clusters whose runs the script for Table 2 in the paper's code reads.
        appendix: the setting in the paper's Table 4.
    """

    name: str
    estimator: str
    options: dict[str, Any]
    paper: dict[int, tuple[tuple[float, float], tuple[float, float]]]
    script: dict[int, Setting]
    appendix: Setting

    def settings(self, learning_rate: float | None = None) -> list[Setting]:
        """What Table 4 names to choose from: learning rates with η = 1, or each η with a learning rate."""
        if self.estimator not in PULLED_BACK:
            return [Setting(rate) for rate in LEARNING_RATES] if learning_rate is None else []
        if learning_rate is None:
            return [Setting(rate, 1.0) for rate in LEARNING_RATES]
        return [Setting(learning_rate, size) for size in STEP_SIZES]

    def run(
        self, clusters: int, setting: Setting, seed: int, protocol: Protocol, steps: int = STEPS, **options: Any
    ) -> dict[str, Any]:
        """The arguments of one run in `train`."""
        eta = {} if setting.step_size is None else {"step_size": setting.step_size}
        return {
            "clusters": clusters,
            "estimator": self.estimator,
            "options": self.options | eta | options,
            "learning_rate": setting.learning_rate,
            "seed": seed,
            "steps": steps,
            "protocol": protocol.of_training(self.estimator),
            "data_seed": DATA_SEED,
        }


def _row(
    name: str,
    estimator: str,
    options: dict[str, Any],
    paper: str,
    script: tuple[tuple[float, ...], tuple[float, ...]],
    appendix: tuple[float, ...],
) -> Row:
    values = [float(value) for value in paper.split()]
    figures = {
        clusters: ((own[0], own[1]), (own[2], own[3])) for clusters, own in zip(CLUSTERS, (values[:4], values[4:]), strict=True)
    }
    settings = {clusters: Setting(*setting) for clusters, setting in zip(CLUSTERS, script, strict=True)}
    return Row(name, estimator, options, figures, settings, Setting(*appendix))


_AVERAGE = "score function, moving average *"
# Accuracy ± error and V-measure ± error for three clusters, then for ten.
ROWS = [
    _row("linear", "linear", {}, "68.05 0.09 0.0 0.0 60.0 0.06 0.0 0.0", ((1e-3,), (2e-3,)), (1e-3,)),
    _row("gold clusters", "gold", {}, "92.4 0.06 100.0 0.0 88.5 0.1 100.0 0.0", ((1e-3,), (1e-3,)), (1e-3,)),
    _row("softmax", "marginals", {}, "93.15 0.33 66.88 0.97 86.45 0.33 75.07 1.18", ((2e-3,), (1e-3,)), (2e-3,)),
    _row("sparsemax", "sparsemap", {}, "92.95 0.38 71.35 16.6 83.75 1.32 76.13 3.89", ((1e-3,), (2e-3,)), (1e-3,)),
    _row(
        "Gumbel-softmax *", "perturbed_marginals", {}, "94.25 3.42 100.0 6.8 80.45 0.77 89.68 1.1", ((2e-3,), (2e-3,)), (2e-3,)
    ),
    _row("ST-Gumbel *", "perturb_and_map", {}, "93.85 3.25 100.0 6.8 81.25 0.68 91.52 1.46", ((2e-3,), (2e-3,)), (2e-3,)),
    # Table 4 names no learning rate for these two: that of the script for three clusters.
    _row(
        "score function *",
        "score_function",
        {"baseline": "none"},
        "68.45 0.33 47.73 17.65 59.8 0.58 55.56 3.3",
        ((2e-3,), (1e-3,)),
        (2e-3,),
    ),
    _row(
        _AVERAGE,
        "score_function",
        {"baseline": "moving_average"},
        "94.2 0.08 100.0 0.0 84.7 0.97 96.83 0.85",
        ((2e-3,), (2e-3,)),
        (2e-3,),
    ),
    _row("STE-S", "ste_marginals", {}, "86.95 4.01 84.44 11.61 75.95 1.1 82.83 2.75", ((2e-3,), (1e-3,)), (2e-3,)),
    _row("STE-I", "ste_identity", {}, "92.6 0.23 100.0 0.0 84.5 1.43 94.48 1.35", ((1e-3, 2.0), (2e-3, 1.0)), (1e-3, 1.0)),
    _row("SPIGOT", "spigot", {}, "77.9 1.26 20.53 1.85 68.8 1.02 29.24 2.24", ((1e-3, 1.0), (1e-4, 0.1)), (2e-3, 0.1)),
    _row("SPIGOT-CE", "spigot_ce", {}, "93.4 2.64 97.08 13.92 83.5 0.87 94.88 1.39", ((2e-3, 2.0), (2e-3, 1.0)), (1e-3, 0.1)),
    _row("SPIGOT-EG", "spigot_eg", {}, "92.7 3.04 100.0 8.27 79.4 2.03 82.29 2.15", ((2e-3, 0.1), (2e-3, 1.0)), (1e-3, 0.1)),
]
