"""How the Trainer is told which parameters of a `forward` are labels."""

from collections.abc import Callable
from inspect import signature


class _LabelName(str):
    """The name of a parameter that the Trainer takes for labels: it looks for "label" in the names."""

    def __contains__(self, part: str) -> bool:  # type: ignore[override]
        return part == "label" or super().__contains__(part)


def learns_from(name: str) -> Callable[[Callable], Callable]:
    """Decorator of a `forward` that has labels of this name: the Trainer evaluates with them, and hands them to metrics.

    (`TrainingArguments(label_names=[name])` says the same, in each script anew.)
    """

    def decorate(forward: Callable) -> Callable:
        parameters = signature(forward).parameters.values()
        named = [one.replace(name=_LabelName(name)) if one.name == name else one for one in parameters]
        forward.__signature__ = signature(forward).replace(parameters=named)  # type: ignore[attr-defined]
        return forward

    return decorate
