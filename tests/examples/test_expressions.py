"""Trees of expressions, learned from answers: the networks, and the commands."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from hf_latent import DependencyTree, get_estimator
from hf_latent.data import arithmetic, listops

FOLDER = Path(__file__).parents[2] / "examples" / "expressions"
TREES = DependencyTree(True, True)


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


def calculator_of(task, calculate):
    """A calculator that is told how to make a value from the numbers of its operands, `(batch, operators, digits)` a side."""
    import calculator

    made = calculator.Calculator(task.operators, (task.first_digit, len(task.tokens)), task.depth, task.sides).eval()
    for side in made.operands:
        side.forward = lambda values: values
    made.operators.forward = lambda operators: torch.nn.functional.one_hot(operators, task.operators).float()
    made.gates.forward = lambda operators: torch.ones(*operators.shape, task.digits)
    made.units.forward = calculate
    made.output.forward = lambda values: values
    return made


def answer(made, task, expression):
    words = torch.tensor([[task.tokens.index(word) for word in expression.words]])
    arcs = torch.nn.functional.one_hot(torch.tensor([expression.heads]), len(expression.heads) + 1).float()
    return made(words, arcs).argmax().item()


def test_right_values_go_up_any_tree():
    """With an operator that hands on its largest operand, the answer is that of `[MAX`, at any depth and length."""
    from tasks import LISTOPS

    made = calculator_of(LISTOPS, lambda both: 50.0 * (both[..., LISTOPS.operators :] > 0.5) * torch.arange(1, 11))
    for expression in listops.generate(20, longest=60, shortest=20, depth=6, seed=3, operators=("[MAX",)):
        assert answer(made, LISTOPS, expression) == expression.answer


def test_operands_have_sides():
    from tasks import ARITHMETIC

    def calculate(both):
        own, left, right = both.split([4, 7, 7], dim=2)
        operators = list(arithmetic.OPERATORS.values())
        values = torch.zeros_like(left)
        for row, place in torch.cartesian_prod(torch.arange(len(own)), torch.arange(own.shape[1])).tolist():
            a, b = left[row, place].argmax().item(), right[row, place].argmax().item()
            if left[row, place].sum() > 0.9 and right[row, place].sum() > 0.9 and not (own[row, place, 3] and b == 0):
                values[row, place, operators[own[row, place].argmax()](a, b)] = 50.0
        return values

    made = calculator_of(ARITHMETIC, calculate)
    for expression in arithmetic.generate(20, longest=40, shortest=10, depth=6, seed=3):
        assert answer(made, ARITHMETIC, expression) == expression.answer


@pytest.mark.parametrize("scorer", ["counter", "biaffine"])
@pytest.mark.parametrize(
    ("task", "texts"),
    [
        ("listops", ("[MAX 2 9 [MIN 4 7 ] 0 ]", "[SM 1 1 [MED 8 3 ] 5 ]")),
        ("arithmetic", ("2 * ( 3 + 4 ) - 5", "1 / ( 6 - 0 ) + 1")),
    ],
)
def test_the_parser_sees_kinds_of_tokens(task, texts, scorer):
    import model
    import train
    from tasks import TASKS

    torch.manual_seed(0)
    network = model.TreeModel(TASKS[task], get_estimator("marginals"), TREES, scorer).eval()
    read = {"listops": listops.read, "arithmetic": arithmetic.read}[task]
    heads = [network(**train.collate(TASKS[task], [train.row_of(TASKS[task], read(text.split()))]))["heads"] for text in texts]
    assert torch.equal(*heads)


@pytest.mark.parametrize("name", ["listops", "arithmetic"])
def test_words_alone_have_heads(name):
    import model
    import train
    from tasks import TASKS

    task = TASKS[name]
    torch.manual_seed(0)
    network = model.TreeModel(task, get_estimator("ste_marginals"), TREES).eval()
    found = task.generate(8, 20, seed=1)
    rows = [train.row_of(task, one) for one in found]
    together = network(**train.collate(task, rows))
    for place, row in enumerate(rows):
        alone = network(**train.collate(task, [row]))
        assert torch.equal(alone["heads"][0], together["heads"][place, : len(found[place].words)])
        torch.testing.assert_close(alone["logits"][0], together["logits"][place], rtol=1e-4, atol=1e-5)
    gold = model.TreeModel(task, None, TREES).eval()(**train.collate(task, rows))
    assert torch.equal(gold["heads"], train.collate(task, rows)["gold_heads"])


def test_a_command_makes_each_run_once(monkeypatch, tmp_path, capsys):
    import tasks
    import train

    monkeypatch.setattr(train, "EXPRESSIONS", 300)
    names = ["21 to 40, depth 5", "80 to 100", "up to 20 tokens", "160 to 200"]
    small = dict(zip(names, [(5, {"longest": longest}) for longest in (20, 20, 20, 30)], strict=True))
    monkeypatch.setitem(tasks.TASKS, "listops", dataclasses.replace(tasks.LISTOPS, tests=small))
    (tmp_path / "test.tsv").write_text("4\t( [MAX 2 4 ] )\n7\t[FIRST 7 1 ]\n")
    rows = ["bilstm", "gold trees", "perturb_and_map"]
    command = ["reproduce.py", "listops", "table", "--rows", *rows, "--seeds", "1", "--steps", "6", "--jobs", "1"]
    command += ["--output_dir", str(tmp_path), "--files", str(tmp_path / "test.tsv")]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(FOLDER / "reproduce.py"), run_name="__main__")
    files = {file: file.stat().st_mtime for file in (tmp_path / "runs").iterdir()}
    assert len(files) == 4  # two kinds of trees
    runpy.run_path(str(FOLDER / "reproduce.py"), run_name="__main__")
    assert {file: file.stat().st_mtime for file in (tmp_path / "runs").iterdir()} == files
    stored = json.loads((tmp_path / "table.json").read_text())
    assert [one["label"] for one in stored] == [*rows[:2], "perturb_and_map, projective", "perturb_and_map, non-projective"]
    assert all(0 <= one["tests"]["test.tsv"]["answers"] <= 1 for one in stored)
    assert stored[1]["tests"]["up to 20 tokens"]["edges"] == 1
    assert "edges" not in stored[0]["tests"]["up to 20 tokens"]
    assert "| perturb_and_map, non-projective |" in capsys.readouterr().out
    assert (tmp_path / "table.svg").stat().st_size > 1000


def test_the_recipe_can_be_taken_apart():
    import train

    whole = train.schedules("perturb_and_map", [])
    assert set(whole) == {"entropy_bonus", "counter_temperature", "noise_scale"}
    assert [round(whole["noise_scale"](done), 3) for done in (0, 0.4, 0.8, 1)] == [1, 1, 0.05, 0.05]
    assert [round(whole["counter_temperature"](done), 3) for done in (0, 0.6, 1)] == [1, 0.1, 0.1]
    assert set(train.schedules("marginals", ["whole steps"])) == {"entropy_bonus"}
    assert train.schedules("marginals", ["entropy bonus"])["entropy_bonus"](0) == 0


def test_gradients_are_compared_in_the_course_of_a_training(monkeypatch, tmp_path, capsys):
    import gradients
    import train

    monkeypatch.setattr(train, "EXPRESSIONS", 300)
    monkeypatch.setattr(gradients, "EXPRESSIONS", 6)
    monkeypatch.setattr(gradients, "REPEATS", 2)
    command = ["reproduce.py", "listops", "gradients", "--kinds", "projective", "--seeds", "1", "--steps", "40", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--output_dir", str(tmp_path)])
    runpy.run_path(str(FOLDER / "reproduce.py"), run_name="__main__")
    (file,) = (tmp_path / "runs").iterdir()
    cosines = json.loads(file.read_text())["result"]["cosines"]
    assert list(cosines) == ["0", "2", "10"]
    for own in cosines.values():
        assert all(-1.001 <= cosine <= 1.001 for cosine in own.values())
        assert own["expected_loss"] == pytest.approx(1, abs=1e-4)  # which is the exact gradient
        assert own["marginals"] < 0.9999
    assert "| expected_loss | 1.00 | 1.00 | 1.00 |" in capsys.readouterr().out
