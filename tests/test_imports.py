"""Which modules of the package import which."""

import ast
from pathlib import Path

import hf_latent

PACKAGE = Path(hf_latent.__file__).parent
MODULES = {
    ".".join(["hf_latent", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(name: str) -> set[str]:
    """All that a module imports, anywhere in it: modules of the package in full, others by the name of their package.

    `from package import module` is an import of the module alone.
    """
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{name} has a relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= parts & MODULES.keys() or {node.module}
    return {one if one in MODULES else one.split(".")[0] for one in found}


GRAPH = {name: imports_of(name) for name in MODULES}


def test_no_import_circle():
    """Nor one that is hidden by an import within a function."""
    left = {name: found & MODULES.keys() for name, found in GRAPH.items()}
    while free := {name for name, found in left.items() if not found & left.keys()}:
        left = {name: found for name, found in left.items() if name not in free}
    assert not left, f"import each other: {', '.join(sorted(left))}"


def test_trees_are_for_people():
    for name, found in GRAPH.items():
        if name.startswith("hf_latent.trees"):
            assert "transformers" not in found
            assert not any(one.startswith(("hf_latent.models", "hf_latent.layers", "hf_latent.estimators")) for one in found)
    assert not {"hf_latent.trees.tree", "torch"} & GRAPH["hf_latent.trees.drawing"]
