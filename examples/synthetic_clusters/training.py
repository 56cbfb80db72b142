"""Many models trained side by side: runs that differ in their start and learning rate only are one program of tensors.

A run's result does not depend on the runs beside it, up to rounding: it has random numbers of its own.
"""

from typing import Any

import torch
from clusters import (
    NO_CHOICE,
    PULLED_BACK,
    STOCHASTIC,
    Columns,
    Protocol,
    Split,
    first_weights,
    make_data,
    make_estimator,
    with_random_labels,
)
from sklearn.metrics import v_measure_score
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from hf_latent.estimators.relaxations import Relaxation

# As in the paper's code: after the first step, the 501st, and so on to the 10,001st.
EVALUATE_EVERY, STEPS = 500, 10_001
# What runs that are trained side by side may differ in.
OWN = ("seed", "learning_rate")
# Of Adam: the decay of both averages, and what the root is kept from 0 by.
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Products(torch.autograd.Function):
    """W Xᵀ for weights `(rows, features)` and points `(count, features)`; the points have no gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, points: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return times_transposed(weights, points)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return times_transposed(gradient, ctx.transposed), None, None


def times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T`, by oneDNN where torch has it: on some processors it is twice as fast as what `@` calls."""
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return left @ right.T


class Models:
    """The models of some runs, all with the same data, estimator and protocol.

    Weights have a dimension for the runs behind that for the clusters: `(clusters, runs, features)`. So the scores of several
    runs are the columns of one batch.

    Args:
        runs: arguments of `train`.
        group: how many runs an estimator sees at a time; by default, what fits into a processor's cache.
    """

    def __init__(self, runs: list[dict[str, Any]], group: int | None = None) -> None:
        first = runs[0]
        self.protocol, self.name = Protocol(**first["protocol"]), first["estimator"]
        self.clusters = 1 if self.name == "linear" else first["clusters"]
        self.structure = Columns()
        self.estimator = None if self.name in NO_CHOICE else make_estimator(self.name, first["options"], self.protocol)
        starts, self.random_states = [], []
        for run in runs:
            starts.append(first_weights(self.clusters, self.name, run["seed"], self.protocol))
            self.random_states.append(torch.get_rng_state())
        self.weights = {
            name: torch.stack([start[name] for start in starts], min(1, starts[0][name].dim())).requires_grad_()
            for name in starts[0]
        }
        self.group = 1 if self.name in STOCHASTIC else group or max(1, 20 // self.clusters)
        self.groups = torch.arange(len(runs)).split(self.group)
        self.states = [self.estimator.initial_state() if self.estimator else None for _ in self.groups]
        # A pulled-back gradient where η multiplies that of the mean is of the size of a mean by itself.
        self.sums_surrogate = self.name in PULLED_BACK and self.protocol.step_size_of == "mean"

    def forward(self, x: Tensor, transposed: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of clusters, and what the classifier of each cluster says: both `(clusters, runs, points)`."""
        both = torch.cat([self.weights["encoder"], self.weights["decoder"]]).flatten(0, 1)
        scores, products = Products.apply(both, x, transposed).view(2, self.clusters, -1, len(x))
        return scores + self.weights["encoder_bias"][..., None], products

    def logits(self, z: Tensor, products: Tensor, bias: Tensor) -> Tensor:
        """`(runs, points)`, for the choices z of a group of runs, `(runs · points, clusters)`."""
        return (z.T.view_as(products) * products).sum(0) + bias[:, None]

    def loss(self, data: Split, transposed: Tensor) -> Tensor:
        """What to take the gradient of: the sum of all runs' mean losses."""
        scores, products = self.forward(data.x, transposed)
        signs, total = 1 - 2 * data.y, torch.zeros(())
        parts = zip(*(part.split(self.group, -2) for part in (scores, products)), strict=True)
        for place, (own_scores, own_products) in enumerate(parts):
            bias = self.weights["decoder_bias"][self.groups[place]]

            def task_loss(z: Tensor, products: Tensor = own_products, bias: Tensor = bias) -> Tensor:
                return softplus(signs * self.logits(z, products, bias)).flatten()

            if self.estimator is None:
                total = total + task_loss(self.known_choice(data, own_products)).sum() / len(data.x)
                continue
            with OwnRandomState(self.random_states, self.groups[place][0], self.name in STOCHASTIC):
                flat = own_scores.flatten(1).T
                latent = self.estimator.resume(self.structure, flat, None, task_loss, self.states[place])
            self.states[place] = latent.state
            surrogate = latent.loss.sum() * (len(data.x) if self.sums_surrogate else 1)
            total = total + (task_loss(latent.value).sum() + surrogate) / len(data.x)
        return total

    def known_choice(self, data: Split, products: Tensor) -> Tensor:
        """`(runs · points, clusters)` for a model that has no choice."""
        z = torch.zeros_like(data.z) if self.name == "linear" else data.z
        return one_hot(z, self.clusters).float().T[:, None].expand_as(products).flatten(1).T

    @torch.no_grad()
    def evaluate(self, data: Split) -> list[dict[str, float]]:
        """Of each run, accuracy and V-measure in percent; of relaxations also the accuracy with their argmax."""
        scores, products = self.forward(data.x, data.x.T.contiguous())
        found = []
        for run, bias in enumerate(self.weights["decoder_bias"]):
            flat, own = scores[:, run].T, products[:, run : run + 1]
            if not flat.isfinite().all():
                raise ValueError(f"The training of {self.name!r} has diverged.")
            best = self.structure.argmax(flat)
            z = self.known_choice(data, own) if self.estimator is None else self.estimator.evaluate(self.structure, flat)
            if self.protocol.estimators == "code" and self.name == "perturbed_marginals":
                with OwnRandomState(self.random_states, run, True):
                    z = self.estimator(self.structure, flat).value  # with noise also when it is tested
                    best = self.structure.argmax(z)
            found.append({"accuracy": self.accuracy(z, own, bias, data)})
            known = {"linear": torch.zeros_like(data.z), "gold": data.z}.get(self.name, best.argmax(1))
            found[-1]["v_measure"] = round(100 * v_measure_score(data.z.numpy(), known.numpy()), 2)
            if isinstance(self.estimator, Relaxation) or self.name == "perturbed_marginals":
                found[-1]["accuracy_of_argmax"] = self.accuracy(best, own, bias, data)
        return found

    def accuracy(self, z: Tensor, products: Tensor, bias: Tensor, data: Split) -> float:
        right = (self.logits(z, products, bias[None])[0] > 0) == data.y.bool()
        return round(100 * right.double().mean().item(), 2)


class OwnRandomState:
    """Within it, random numbers are those of one run."""

    def __init__(self, states: list[Tensor], run: Any, needed: bool) -> None:
        self.states, self.run, self.needed = states, int(run), needed

    def __enter__(self) -> None:
        if self.needed:
            torch.set_rng_state(self.states[self.run])

    def __exit__(self, *_: Any) -> None:
        if self.needed:
            self.states[self.run] = torch.get_rng_state()


class Adam:
    """Adam with a learning rate for each run, or AdamW where weights decay, as `torch.optim` has them.

    Two logits get opposite gradients and move by equal steps, so that their difference moves twice as far as one logit would.
    """

    def __init__(self, models: Models, learning_rates: list[float]) -> None:
        self.weights, rates = list(models.weights.values()), torch.tensor(learning_rates)
        self.decay = models.protocol.weight_decay
        self.rates = [rates[:, None] if name in ("encoder", "decoder") else rates for name in models.weights]
        self.factors = [models.protocol.logits if name.startswith("decoder") else 1 for name in models.weights]
        self.means, self.squares = ([torch.zeros_like(weight) for weight in self.weights] for _ in range(2))
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...]) -> None:
        self.steps += 1
        corrections = [1 - beta**self.steps for beta in BETAS]
        every = zip(self.weights, gradients, self.means, self.squares, self.rates, self.factors, strict=True)
        for weight, gradient, mean, square, rate, factor in every:
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            root = (square / corrections[1]).sqrt_().add_(EPSILON)
            if self.decay:
                weight.mul_(1 - rate * self.decay)
            weight.sub_((factor / corrections[0]) * rate * mean / root)


def train(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each run: after every `EVALUATE_EVERY` steps of full batches, on data to validate and to test with.

    Args:
        runs: each with `clusters`, `estimator` (a name that `get_estimator` knows, "linear" or "gold"), its `options`,
            `learning_rate`, `seed`, `steps`, `protocol` (the fields of `Protocol`) and `data_seed`; with `labels`, where they
            are to be "random". They are alike in all but `OWN`.
    """
    torch.set_num_threads(1)
    first = runs[0]
    data = make_data(first["clusters"], first["data_seed"])
    if first.get("labels") == "random":
        data = with_random_labels(data)
    training = data.pop("train")
    transposed = training.x.T.contiguous()
    models = Models(runs)
    optimizer = Adam(models, [run["learning_rate"] for run in runs])
    curves: list[dict[str, Any]] = [{"steps": [], **{split: [] for split in data}} for _ in runs]
    for step in range(first["steps"]):
        total = models.loss(training, transposed)
        optimizer.step(torch.autograd.grad(total, list(models.weights.values()), materialize_grads=True))
        if step % EVALUATE_EVERY == 0 or step == first["steps"] - 1:
            for split, points in data.items():
                for curve, figures in zip(curves, models.evaluate(points), strict=True):
                    curve[split].append(figures)
            for curve in curves:
                curve["steps"].append(step)
    return curves
