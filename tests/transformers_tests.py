"""The tests that transformers has for its own models, from the source release of the version that is installed here."""

import importlib
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import transformers

# What the module imports besides, which the source release lacks.
ABSENT = {"exporters/test_export.py": "ExportTesterMixin", "generation/test_utils.py": "GenerationTesterMixin"}


def test_modeling_common() -> ModuleType:
    """The module with `ModelTesterMixin`; where it cannot be had, the tests that ask for it are skipped."""
    folder = Path(sys.prefix, f"transformers-{transformers.__version__}-tests")
    package = folder / "transformers_own_tests"
    if not package.is_dir():
        _fetch(folder, package)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module("transformers_own_tests.test_modeling_common")


def _fetch(folder: Path, package: Path) -> None:
    requirement = f"transformers=={transformers.__version__}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest"]
    done = subprocess.run([*command, str(folder), requirement], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"the source release of {requirement} could not be downloaded", allow_module_level=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        content = files.extractfile(f"transformers-{transformers.__version__}/tests/test_modeling_common.py")
        assert content is not None
        text = content.read()
    for name, missing in ABSENT.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"class {missing}:\n    pass\n")
    for part in (package, *(package / name for name in ("exporters", "generation"))):
        (part / "__init__.py").touch()
    (package / "test_modeling_common.py").write_bytes(text)
