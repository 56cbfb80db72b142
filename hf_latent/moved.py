"""What has another name now: the old one works, and warns of the new. Of the package itself, this knows names alone."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

CLASSIFICATION = "hf_latent.models.latent_tree.modeling_classification"
MODULES = {
    "hf_latent.estimators.soft_twins": "hf_latent.estimators.straight_through",
    "hf_latent.structures.conversions": "hf_latent.structures.dependency_tree.conversions",
    "hf_latent.structures.several": "hf_latent.structures.independent",
    "hf_latent.trees.parsing": "hf_latent.models.latent_tree.parsing",
    "hf_latent.trees.pipeline": "hf_latent.models.latent_tree.pipeline_latent_tree_parsing",
}
NAMES = {
    "hf_latent.Several": "hf_latent.Independent",
    "hf_latent.estimators.estimator.check_choice": "hf_latent.estimators.check_choice",
    "hf_latent.estimators.estimator.check_positive": "hf_latent.estimators.check_positive",
    "hf_latent.estimators.straight_through.spigot": "hf_latent.estimators.spigot",
    "hf_latent.estimators.straight_through.ste_identity": "hf_latent.estimators.ste_identity",
    "hf_latent.estimators.task_losses.gradient_of": "hf_latent.estimators.task_loss_gradient",
    f"{CLASSIFICATION}.LatentTreeForPairClassification": "hf_latent.LatentTreeForPairClassification",
    f"{CLASSIFICATION}.LatentTreeForSequenceClassification": "hf_latent.LatentTreeForSequenceClassification",
    f"{CLASSIFICATION}.LatentTreeForTokenClassification": "hf_latent.LatentTreeForTokenClassification",
    "hf_latent.structures.Several": "hf_latent.structures.Independent",
    "hf_latent.structures.several.Several": "hf_latent.structures.Independent",
    "hf_latent.trees.parse": "hf_latent.parse",
}


def with_old_names(module: str) -> None:
    """Gives a module, or a package, the names that it has lost; it calls this for itself."""

    def find(name: str) -> Any:
        old = f"{module}.{name}"
        if old in MODULES:
            _warn(old, MODULES[old])
            found = module_from_spec(ModuleSpec(old, _OldModules()))
            sys.modules[old] = found
            _OldModules().exec_module(found)
        elif old in NAMES:
            _warn(old, NAMES[old])
            home, _, new_name = NAMES[old].rpartition(".")
            found = getattr(import_module(home), new_name)
        else:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        setattr(sys.modules[module], name, found)  # an import asks twice, and one warning is enough
        return found

    vars(sys.modules[module])["__getattr__"] = find


class _OldModules(MetaPathFinder, Loader):
    """Finds modules that are elsewhere now: under the old name, a module with all that is in the new one."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        _warn(fullname, MODULES[fullname])
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        new = vars(import_module(MODULES[module.__name__]))
        vars(module).update({name: value for name, value in new.items() if name == "__all__" or not name.startswith("__")})
        with_old_names(module.__name__)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"`{old}` is `{new}` now: import it from there.", FutureWarning, stacklevel=3)


sys.meta_path.append(_OldModules())
