"""The notebook runs from top to bottom, and what it tells is so."""

import json
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat and nbclient: pip install nbclient ipykernel")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="needs ipykernel: pip install ipykernel")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
FIGURES = """
import json
print(json.dumps({"accuracy": accuracy, "attachment": attachment, "same": same, "definite": definite_accuracy, "found": found}))
"""


def outputs(cells: list) -> list:
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(cells: list) -> int:
    return sum(
        "svg" in output["data"].get("text/html", "") + " ".join(output["data"]) for output in outputs(cells) if "data" in output
    )


@pytest.mark.slow  # it trains some models
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(FIGURES))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    # A kernel may send what one cell prints in several pieces.
    figures = json.loads("".join(output.text for output in notebook.cells.pop().outputs))
    assert figures["accuracy"]["with a tree"] > 0.9 > 0.6 > figures["accuracy"]["without a tree"]
    assert figures["attachment"]["latent trees"] > 0.9 > max(list(figures["attachment"].values())[1:])
    assert figures["same"]
    assert figures["definite"] > 0.9
    assert set(figures["found"].values()) == {"the goal"}
    assert pictures(notebook.cells) >= 8
    assert [path.name for path in tmp_path.iterdir()] == [NOTEBOOK.name]  # it leaves nothing behind


def test_the_notebook_is_committed_with_its_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(notebook.cells) >= 8
    assert not [output for output in outputs(code) if output.output_type == "error" or output.get("name") == "stderr"]


def test_files_that_the_notebook_names_exist():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    named = {word.strip("`.,:;()") for text in texts for word in text.split() if word.strip(",:;()").endswith(".py`")}
    assert len(named) >= 6
    for name in named:
        assert (NOTEBOOK.parent / name).is_file(), name
