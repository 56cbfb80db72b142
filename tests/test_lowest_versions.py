"""The lowest versions that pyproject.toml allows do work: installed beside, with the core of the tests run on them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[1]

# What these tests need, of the packages for development; those without a lowest version that matters are left to pip.
TOOLS = ["entmax", "hypothesis", "parameterized", "pytest", "scipy", "torch-struct"]
CORE = [
    *("callbacks", "data", "drawing", "interrupts", "kernel_cache", "kernels", "metrics", "models", "operators", "pipelines"),
    *("sampling", "torch_struct", "training", "trees"),
]
CORE_FILES = [path for name in CORE for path in (ROOT / "tests").rglob(f"test_{name}.py")]


def lowest_versions() -> list[str]:
    """Of all packages that are needed to use the library and its examples, and of PEFT."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["drawing"], *extras["evaluation"], *extras["examples"]]
    wanted += [line for line in extras["dev"] if line.startswith("peft")]
    requirements = [Requirement(line) for line in wanted]
    return [f"{one.name}=={bound.version}" for one in requirements if one.name != "hf_latent" for bound in one.specifier]


@pytest.mark.slow
def test_the_core_works_with_the_lowest_versions(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "PYTHONPATH": str(ROOT)}

    def run(*command: object) -> None:
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]

    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", *lowest_versions(), *TOOLS)
    run(python, "-m", "pytest", "-p", "no:cacheprovider", "tests/structures", *CORE_FILES)
