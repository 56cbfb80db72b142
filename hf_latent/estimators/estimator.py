"""The contract of an estimator, the registry that knows each one by its name, and what several estimators share."""

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from hf_latent.structures import Structure

TaskLoss = Callable[[Tensor], Tensor]

# It is nowhere below a network without a tree, costs least, and needs no labels in the forward pass. The README gives the
# figures under "How to choose".
DEFAULT_ESTIMATOR = "marginals"


class Latent(NamedTuple):
    """What an estimator hands to the network.

    Attributes:
        value: what the decoder sees, of the shape of the scores: a vertex z, or a point μ of the polytope.
        loss: `(batch,)`, to be added to each example's loss. Its gradient with respect to the scores is the surrogate
            gradient. Its value is 0, so that the loss reported stays the downstream loss (except for `expected_loss`).
        state: what the next batch's `Estimator.resume` takes; None for an estimator without memory.
    """

    value: Tensor
    loss: Tensor
    state: Tensor | None = None


class Estimator(ABC):
    """How the gradient gets through a discrete choice. A frozen dataclass whose fields are its options.

    An estimator stores nothing between calls. One with a memory gives its first state by `initial_state`, and overrides
    `resume`, which takes a state and returns the next one as `Latent.state`. Its caller keeps the state, as `LatentTreeLayer`
    does.

    Attributes:
        name: the name that it was asked for by, for error messages.
        former_options: from an option's former name to the present one, for models that were saved with the former.
    """

    name: ClassVar[str] = "unregistered"
    former_options: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def __call__(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None = None, task_loss: TaskLoss | None = None
    ) -> Latent:
        """The value and loss to train with. An estimator with a memory begins with its `initial_state` in each such call.

        Args:
            structure: the set that is chosen from.
            scores: `(batch, *event)`, the network's score for each part; -inf forbids one.
            lengths: `(batch,)`, how much of each row counts.
            task_loss: runs the rest of the network on a value in place of the choice and returns the loss of each
                example, `(batch,)`. It is called with dropout as the forward pass after this call will draw it.
        """

    def with_options(self, **options: Any) -> "Estimator":
        """The same estimator with other options; its name stays.

        Raises:
            TypeError: an option that it does not have.
            ValueError: a value that makes no sense.
        """
        cls, fixed = _REGISTRY.get(self.name, (type(self), {}))
        _check_options(self.name, cls, fixed, options)
        changed = dataclasses.replace(self, **options)  # type: ignore[type-var]
        object.__setattr__(changed, "name", self.name)
        return changed

    def evaluate(self, structure: Structure, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the decoder sees at test time, where nothing is estimated: the argmax, or the relaxation's own value."""
        return structure.argmax(scores, lengths)

    def initial_state(self) -> Tensor | None:
        """The state before the first batch; None for an estimator without memory."""
        return None

    def resume(
        self, structure: Structure, scores: Tensor, lengths: Tensor | None, task_loss: TaskLoss | None, state: Tensor | None
    ) -> Latent:
        """A call that goes on from `state`, which is left as it is: the next state is `Latent.state`.

        Whoever recomputes activations keeps the next state only when the backward pass is done, so that the second call
        finds the state that the first one found.
        """
        return self(structure, scores, lengths, task_loss)


_REGISTRY: dict[str, tuple[type[Estimator], dict[str, Any]]] = {}

EstimatorType = TypeVar("EstimatorType", bound=type[Estimator])


def register_estimator(name: str, **fixed: Any) -> Callable[[EstimatorType], EstimatorType]:
    """Class decorator that makes an estimator known to `get_estimator`, with some of its fields fixed.

    Raises:
        ValueError: the name is taken.
    """

    def register(cls: EstimatorType) -> EstimatorType:
        if name in _REGISTRY:
            raise ValueError(
                f"An estimator named {name!r} is registered already ({_REGISTRY[name][0].__name__}); choose another."
            )
        _REGISTRY[name] = cls, fixed
        return cls

    return register


def list_estimators() -> list[str]:
    """The names that `get_estimator` knows, sorted."""
    return sorted(_REGISTRY)


def get_estimator(name: str, **options: Any) -> Estimator:
    """The estimator registered as `name`, with its options (such as `step_size` and `num_steps`).

    An option's former name, which saved models may have, is taken for the present one, with a `FutureWarning`.

    Raises:
        ValueError: an unknown name, or an option with a value that makes no sense.
        TypeError: an option that this estimator does not have.
    """
    if name not in _REGISTRY:
        raise ValueError(f"Unknown estimator {name!r}. The known ones are: {', '.join(list_estimators())}.")
    cls, fixed = _REGISTRY[name]
    options = _renamed(name, cls.former_options, options)
    _check_options(name, cls, fixed, options)
    estimator = cls(**fixed, **options)
    object.__setattr__(estimator, "name", name)
    return estimator


def _check_options(name: str, cls: type[Estimator], fixed: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """An error for an option that the estimator does not have, or that its name has fixed."""
    known = [field.name for field in dataclasses.fields(cls) if field.init and field.name not in fixed]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"Estimator {name!r} has no option {option!r}; {takes}.")


def _renamed(name: str, former: Mapping[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """The options under their present names."""
    for old in [option for option in options if option in former]:
        if former[old] in options:
            raise TypeError(f"Estimator {name!r} was given {old!r} and {former[old]!r}, two names of one option.")
        warnings.warn(
            f"The option {old!r} of estimator {name!r} is called {former[old]!r} now, and is taken for it. Rename it (in a "
            "saved model: under `estimator_options` in its config.json).",
            FutureWarning,
            stacklevel=3,
        )
    return {former.get(option, option): value for option, value in options.items()}


def no_loss(scores: Tensor) -> Tensor:
    """`Latent.loss` of an estimator whose gradient passes through its value: zeros, `(batch,)`."""
    return torch.zeros(scores.shape[0], device=scores.device)


def surrogate_loss(loss: Tensor) -> Tensor:
    """`Latent.loss` of an estimator whose gradient is that of `loss (batch,)`: its value is 0, its gradient stays."""
    return loss - loss.detach()


def with_gradient_of(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of `hard`, to the last bit, with the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())
