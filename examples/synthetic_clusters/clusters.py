"""The synthetic task of the paper, section 7.1: points in K clusters, each with a linear classifier of its own.

A linear encoder scores the clusters, an estimator picks one, and the decoder applies the linear classifier of that one. A model
that does not find the clusters cannot find the classifiers.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from paper_code import OF_THE_CODE
from torch import Tensor, nn

from hf_latent import Categorical, Estimator, get_estimator
from hf_latent.estimators import with_gradient_of

FEATURES, NOISE, SIZES = 100, 0.1, {"train": 5000, "validation": 1000, "test": 1000}
# The seed of the paper's code. All runs share its one data set.
DATA_SEED = 42
# Models without a choice: one classifier for all points, or the true clusters.
NO_CHOICE = ("linear", "gold")
PULLED_BACK = ("ste_identity", "spigot", "spigot_ce", "spigot_eg")
STOCHASTIC = ("perturbed_marginals", "perturb_and_map", "score_function")


@dataclass(frozen=True)
class Protocol:
    """What the paper's code and the paper's text do differently; the defaults are the code's.

    Attributes:
        logits: 2 with cross-entropy, or 1.
        decoder_range: weights begin uniform in ±1/√K ("clusters"), or in ±1/√100 ("features").
        step_size_of: η multiplies the gradient of the batch "mean", or of each "example".
        weight_decay: 0 is Adam; AdamW has 0.01 by default.
        estimators: of the "code" (see `paper_code.py`; also, the Gumbel-softmax is tested with noise), or of the "text".
        thresholds: of the labels to test with: of the "test" points themselves, or of the 6000 points before them ("training").
        kept: the figures after the "last" step, or at the step that is "best" on validation data.
    """

    logits: int = 2
    decoder_range: str = "clusters"
    step_size_of: str = "mean"
    weight_decay: float = 0.0
    estimators: str = "code"
    thresholds: str = "test"
    kept: str = "last"

    def of_training(self, estimator: str) -> dict[str, Any]:
        """What makes a difference to the training of this estimator; all else is as in the code."""
        same = {name: getattr(Protocol(), name) for name in ("thresholds", "kept")}
        if estimator not in PULLED_BACK:
            same["step_size_of"] = "mean"
        if estimator not in STOCHASTIC and estimator not in OF_THE_CODE:
            same["estimators"] = "code"
        if estimator == "linear":
            same["decoder_range"] = "clusters"
        return asdict(replace(self, **same))


PROTOCOLS = {"code": Protocol(), "text": Protocol(1, "features", "example", 0.01, "text", "training", "best")}


@dataclass
class Split:
    """Points `x (count, features)`, labels `y (count,)` in 0/1, and the true clusters `z (count,)`."""

    x: Tensor
    y: Tensor
    z: Tensor


def make_data(clusters: int, seed: int = DATA_SEED) -> dict[str, Split]:
    """z uniform, x ~ N(m_z, 0.01 I), y = [w_z·x > its mean over points of the cluster]; m and w ~ N(0, 1).

    The order of draws is that of the paper's code: 6000 points, of which the first 5000 are to train on, then the test points.
    These have labels by thresholds of their own ("test"), and by those of the points before ("test_by_training").
    """
    generator = torch.Generator().manual_seed(seed)
    means, classifiers = (torch.randn(clusters, FEATURES, generator=generator) for _ in range(2))
    drawn = []
    for count in (SIZES["train"] + SIZES["validation"], SIZES["test"]):
        z = torch.randint(clusters, (count,), generator=generator)
        x = means[z] + NOISE * torch.randn(count, FEATURES, generator=generator)
        scores = (classifiers[z] * x).sum(1)
        drawn.append((x, scores, z, torch.stack([scores[z == k].mean() for k in range(clusters)])))

    def split(points: tuple[Tensor, ...], thresholds: Tensor, places: slice) -> Split:
        x, scores, z, _ = points
        return Split(x[places], (scores > thresholds[z]).float()[places], z[places])

    (first, test), training = drawn, drawn[0][3]
    return {
        "train": split(first, training, slice(SIZES["train"])),
        "validation": split(first, training, slice(SIZES["train"], None)),
        "test": split(test, test[3], slice(None)),
        "test_by_training": split(test, training, slice(None)),
    }


def with_random_labels(data: dict[str, Split]) -> dict[str, Split]:
    """The same points with labels that say nothing of them."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: replace(split, y=torch.randint(2, split.y.shape, generator=generator).float()) for name, split in data.items()
    }


class Columns(Categorical, guarded=False):
    """`Categorical` for scores `(batch, k)` with a short k that lie column by column in memory; none is forbidden.

    torch takes the softmax of short rows one number at a time, and that of columns sixteen at a time.
    """

    def check(self, scores: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return scores, torch.tensor(scores.shape[1]).expand(scores.shape[0])

    def mask(self, scores: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones_like(scores, dtype=torch.bool)

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        scores = scores.detach()
        best = (scores == scores.amax(1, keepdim=True)).to(scores.dtype)
        return best if best.sum() == len(best) else super().argmax(scores)  # of equal scores, the first

    def marginals(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return scores.T.softmax(0).T

    def sample(self, scores: Tensor, *rest: Any) -> Tensor:
        """One of each row, by where a uniform number falls among the sums of probabilities."""
        below = (torch.rand(len(scores)) < scores.detach().T.softmax(0).cumsum(0)).to(scores.dtype)
        below[-1] = 1
        return below.diff(dim=0, prepend=torch.zeros_like(below[:1])).T[None]

    def log_prob(self, z: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return (z * scores.T.log_softmax(0).T).sum(-1)

    def score(self, z: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return (z.to(scores.dtype) * scores).sum(1)

    def sparsemap(self, scores: Tensor, *rest: Any, **options: Any) -> Tensor:
        """Newton's method for the threshold over which the scores lie by 1 in all, begun below it: exact after a few steps."""
        columns = scores.detach().T.contiguous().T
        threshold, size = (columns.sum(1, keepdim=True) - 1) / columns.shape[1], -1.0
        threshold = torch.maximum(threshold, columns.amax(1, keepdim=True) - 1)
        over, support = torch.empty_like(columns), torch.empty_like(columns)  # used again, since they stay in the cache
        while True:
            torch.sub(columns, threshold, out=over).relu_()
            count = torch.sign(over, out=support).sum(1, keepdim=True)
            if (total := count.sum().item()) == size:
                break
            # Rounding must not lower it: what was out would come in again, for ever.
            threshold, size = threshold + ((over.sum(1, keepdim=True) - 1) / count).relu_(), total
        if not scores.requires_grad:
            return over
        return with_gradient_of(support * (scores - (support * scores).sum(1, keepdim=True) / count), over)

    def project_from(self, targets: Tensor, start: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.sparsemap(targets.detach())

    def project_from_marginals(self, targets: Tensor, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.sparsemap(targets.detach())


def make_estimator(name: str, options: dict[str, Any], protocol: Protocol) -> Estimator:
    """The library's estimator, or what the paper's code has in its place."""
    if protocol.estimators == "code" and name in OF_THE_CODE:
        return OF_THE_CODE[name](**options)
    if name in PULLED_BACK and protocol.step_size_of == "mean":
        options = options | {"step_size": options["step_size"] / SIZES["train"]}
    return get_estimator(name, **options)


def first_weights(clusters: int, estimator: str, seed: int, protocol: Protocol) -> dict[str, Tensor]:
    """A random start, drawn as the paper's code draws it from the same seed; torch's random state is what it is afterwards.

    Two logits W₁x and W₀x say as much as one, (W₁ - W₀)x, and that one is what is trained.

    Returns:
        `encoder (clusters, features)`, `encoder_bias (clusters,)`, `decoder (clusters, features)` and `decoder_bias ()`.
    """
    torch.manual_seed(seed)
    if estimator == "linear":
        decoder: nn.Module = nn.Linear(FEATURES, protocol.logits)
        encoder, weight = nn.Linear(FEATURES, 1), decoder.weight[:, None]
    else:
        encoder = nn.Linear(FEATURES, clusters)
        if estimator == "gold":
            torch.manual_seed(seed)  # it has no encoder
        decoder = nn.Bilinear(clusters, FEATURES, protocol.logits)
        weight = decoder.weight * ((clusters / FEATURES) ** 0.5 if protocol.decoder_range == "features" else 1)
    bias = decoder.bias
    if protocol.logits == 2:
        weight, bias = weight.diff(dim=0), bias.diff(dim=0)
    weights = {"encoder": encoder.weight, "encoder_bias": encoder.bias, "decoder": weight[0], "decoder_bias": bias[0]}
    return {name: value.detach() for name, value in weights.items()}
