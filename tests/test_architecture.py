"""The rules of the layout: imports point one way, and each structure keeps to itself."""

import re

from test_imports import GRAPH, PACKAGE

import hf_latent
from hf_latent import estimators, layers, structures

ORDER = ["inference", "structures", "estimators", "layers", "trees", "models"]
UNDER_ALL = {"files", "moved"}  # know nothing of the rest
TOP_LEVEL = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
ON_TOP = TOP_LEVEL - set(ORDER) - UNDER_ALL - {"__init__"}
WITHOUT_HUGGING_FACE = ["inference", "structures", "estimators", "layers"]
EVERY_STRUCTURES = {"structure", "declared"}  # what all structures share


def within(folder: str) -> dict[str, set[str]]:
    return {name: found for name, found in GRAPH.items() if name.startswith(f"hf_latent.{folder}")}


def test_the_rules_name_what_there_is():
    assert {*ORDER, *UNDER_ALL} <= TOP_LEVEL
    assert set(WITHOUT_HUGGING_FACE) < set(ORDER)
    assert all((PACKAGE / "structures" / f"{name}.py").exists() for name in EVERY_STRUCTURES)


def test_imports_point_one_way():
    for place, folder in enumerate(ORDER):
        later = tuple(f"hf_latent.{name}" for name in {*ORDER[place + 1 :], *ON_TOP})
        for name, found in within(folder).items():
            wrong = {one for one in found if one == "hf_latent" or one.startswith(later)}
            assert not wrong, f"{name} imports {wrong}"


def test_algorithms_know_nothing_of_hugging_face():
    for folder in WITHOUT_HUGGING_FACE:
        for name, found in within(folder).items():
            assert "transformers" not in found, name


def test_no_structure_imports_another():
    for name, found in within("structures.").items():
        own = name.split(".")[2]
        others = {one.split(".")[2] for one in found if one.startswith("hf_latent.structures.")}
        allowed = {own, *EVERY_STRUCTURES, *({"dependency_tree"} if own == "conversions" else ())}  # its old place
        assert others <= allowed, f"{name} imports {others - allowed}"


def test_nobody_goes_past_the_declaration_to_the_algorithms():
    """What computes for a structure is imported by its own package alone."""
    for name, found in GRAPH.items():
        for one in found:
            if match := re.match(r"(hf_latent\.structures\.\w+)\.(cpu|gpu|reference)\b", one):
                assert name.startswith(match[1]), f"{name} imports {one}"
            if one.startswith("hf_latent.inference.cpu"):
                assert re.match(r"hf_latent\.inference\.cpu|hf_latent\.structures\.\w+\.cpu", name), f"{name} imports {one}"


def test_what_is_public_is_listed_once():
    for module in (hf_latent, structures, estimators, layers):
        assert len(set(module.__all__)) == len(module.__all__), module.__name__
        assert all(hasattr(module, name) for name in module.__all__), module.__name__
