"""The models that this package adds to transformers, each registered where it is defined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

# What a model chooses, and how it learns that: a tree or some words that serve its task, trees of a treebank, or a sequence of
# labels.
Kind = Literal["latent tree", "selection", "parser", "sequence"]
Model = TypeVar("Model", bound=type[PreTrainedModel])

# Saved models carry the file of the module that their class names. It is not the module that defines the class, of which a copy
# would define another class of that name, but one that finds it in the installed package.
CARRIED = "hf_latent.modeling_hf_latent"


@dataclass(frozen=True)
class Task:
    """What a model is for, as its card says it.

    Attributes:
        pipeline: the task as the Hub names it.
        name: the task in words.
        does: what the model does, after "This model".
        num_texts: how many texts make an example.
        kind: what kind of model it is.
    """

    pipeline: str
    name: str
    does: str
    num_texts: int = 1
    kind: Kind = "latent tree"


@dataclass(frozen=True)
class RegisteredModel:
    """A model class with the Auto class that loads it and, if it has a card of ours, its task.

    Attributes:
        is_default: whether the Auto class also makes this model where no saved configuration names a class.
    """

    model_class: type[PreTrainedModel]
    auto_class: type
    task: Task | None
    is_default: bool

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        return self.model_class.config_class


_models: dict[str, RegisteredModel] = {}


def register_model(auto_class: type, task: Task | None = None, is_default: bool = True) -> Callable[[Model], Model]:
    """Decorator of a model class: makes it known to the Auto classes, to what saved models carry, and to model cards.

    Its configuration class is registered with the first model that has it.

    Args:
        auto_class: the class of transformers that is to load the model, such as `AutoModelForTokenClassification`.
        task: what a card says of the model; None if no cards are written for it.
        is_default: False for a model that the `auto_class` makes only where a saved configuration names it.
    """

    def register(model_class: Model) -> Model:
        config_class = model_class.config_class
        if all(other.config_class is not config_class for other in _models.values()):
            AutoConfig.register(config_class.model_type, config_class)
            _carry(config_class, AutoConfig)
        _models[model_class.__name__] = RegisteredModel(model_class, auto_class, task, is_default)
        same = [one for one in _models.values() if (one.auto_class, one.config_class) == (auto_class, config_class)]
        same.sort(key=lambda one: not one.is_default)
        classes = tuple(one.model_class for one in same)
        auto_class.register(config_class, classes if len(classes) > 1 else model_class, exist_ok=True)  # type: ignore[attr-defined]
        _carry(model_class, auto_class)
        return model_class

    return register


def _carry(own_class: type, auto_class: type) -> None:
    own_class.__module__ = CARRIED
    own_class.register_for_auto_class(auto_class.__name__)  # type: ignore[attr-defined]


def registered_models() -> dict[str, RegisteredModel]:
    """All models by the names of their classes, in the order in which they were registered."""
    return dict(_models)


def exported_names() -> list[str]:
    """The names of all models and of their configurations, which the package exports and saved models import."""
    return sorted({one.__name__ for model in _models.values() for one in (model.model_class, model.config_class)})
