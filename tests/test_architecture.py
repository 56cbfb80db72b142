"""Imports point one way: inference -> structures -> estimators -> layers -> trees -> models -> what stands on top."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "hf_latent"
ORDER = ["inference", "structures", "estimators", "layers", "trees", "models"]
UNDER_ALL = {"files"}  # knows nothing of the rest
MODULES = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
ON_TOP = MODULES - set(ORDER) - UNDER_ALL - {"__init__"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_imports_point_one_way():
    assert set(ORDER) <= MODULES
    for place, folder in enumerate(ORDER):
        later = {f"hf_latent.{name}" for name in {*ORDER[place + 1 :], *ON_TOP}}
        for path in (PACKAGE / folder).rglob("*.py"):
            wrong = {name for name in imported(path) if name == "hf_latent" or any(name.startswith(one) for one in later)}
            assert not wrong, f"{path} imports {wrong}"


def test_algorithms_know_nothing_of_hugging_face():
    for folder in ORDER[:4]:
        for path in (PACKAGE / folder).rglob("*.py"):
            assert not any(name.startswith("transformers") for name in imported(path)), path
