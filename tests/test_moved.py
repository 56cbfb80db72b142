"""What has another name now is found under the old one, with one warning that names the new."""

import subprocess
import sys
from importlib import import_module

import pytest

from hf_latent.moved import NAMES

CONVERSIONS = "hf_latent.structures.conversions", "hf_latent.structures.dependency_tree.conversions"


def resolved(name: str) -> object:
    home, _, last = name.rpartition(".")
    return getattr(import_module(home), last)


def imported_anew(line: str) -> subprocess.CompletedProcess[str]:
    """A process, since each warning is given once in one."""
    code = f"import hf_latent, warnings\nwarnings.simplefilter('always')\n{line}\n{line}\nprint(found.__name__)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("old", NAMES)
def test_names(old):
    assert resolved(old) is resolved(NAMES[old])


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("from hf_latent.trees import parse as found", "hf_latent.trees.parse", "hf_latent.parse"),
        ("from hf_latent.structures.conversions import heads_from_arcs as found", *CONVERSIONS),
    ],
)
def test_one_warning_names_the_new_place(line, old, new):
    done = imported_anew(line)
    warnings = [part for part in done.stderr.splitlines() if "FutureWarning" in part]
    assert len(warnings) == 1
    assert warnings[0].startswith("<string>:3:")  # the line of the caller
    assert f"`{old}` is `{new}` now: import it from there." in warnings[0]


def test_other_names_are_errors_as_ever():
    for module in sorted({name.rpartition(".")[0] for name in NAMES}):
        with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute 'nothing'"):
            import_module(module).nothing  # noqa: B018
