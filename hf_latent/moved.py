"""What has another name now: the old one works, and warns of the new. Of the package itself, this knows names alone."""

import sys
import warnings
from importlib import import_module
from typing import Any

# Public name before: where it is now.
NAMES = {
    "hf_latent.Several": "hf_latent.Independent",
    "hf_latent.structures.Several": "hf_latent.structures.Independent",
    "hf_latent.trees.parse": "hf_latent.parse",
}


def with_old_names(module: str) -> None:
    """Gives a package the names that it has lost; it calls this for itself."""

    def find(name: str) -> Any:
        old = f"{module}.{name}"
        if old not in NAMES:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_of_old_name(old, NAMES[old])
        home, _, new_name = NAMES[old].rpartition(".")
        found = getattr(import_module(home), new_name)
        setattr(sys.modules[module], name, found)  # an import asks twice, and one warning is enough
        return found

    vars(sys.modules[module])["__getattr__"] = find


def warn_of_old_name(old: str, new: str) -> None:
    """Says where `old` is now, at the line of whoever asks for it."""
    warnings.warn(f"`{old}` is `{new}` now: import it from there.", FutureWarning, stacklevel=3)
