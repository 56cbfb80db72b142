"""Trees of list operations, learned from answers: the networks, and the commands."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from hf_latent import DependencyTree, get_estimator
from hf_latent.data.listops import TOKENS, generate, read

FOLDER = Path(__file__).parents[2] / "examples" / "listops"
OPERATORS = ("[MAX", "[MIN", "[MED", "[SM")
TREES = DependencyTree(True, True)


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


def test_right_values_go_up_any_tree():
    """With an operator that hands on its largest operand, the answer is that of `[MAX`, at any depth and length."""
    import model

    calculator = model.Calculator().eval()
    seen = []

    def largest(values):  # in place of what is learned: from the sums of the operands' values
        seen.append(values)
        return values

    calculator.operands.forward = largest
    calculator.units.forward = lambda both: both
    calculator.operators.forward = lambda operators: torch.zeros(*operators.shape, 0)
    calculator.gates.forward = lambda operators: torch.ones(*operators.shape, 10)
    calculator.output.forward = lambda sums: 50.0 * (sums > 0.5) * torch.arange(1, 11)
    for expression in generate(20, longest=60, shortest=20, depth=6, seed=3, operators=("[MAX",)):
        words = torch.tensor([[TOKENS.index(word) for word in expression.words]])
        arcs = torch.nn.functional.one_hot(torch.tensor([expression.heads]), len(expression.heads) + 1).float()
        assert calculator(words, arcs).argmax().item() == expression.answer


@pytest.mark.parametrize("scorer", ["counter", "biaffine"])
def test_the_parser_does_not_see_the_digits(scorer):
    import model
    import train

    torch.manual_seed(0)
    network = model.TreeModel(get_estimator("marginals"), TREES, scorer).eval()
    heads = []
    for text in ("[MAX 2 9 [MIN 4 7 ] 0 ]", "[SM 1 1 [MED 8 3 ] 5 ]"):
        expression = read(text.split())
        row = {
            "input_ids": torch.tensor([TOKENS.index(token) for token in expression.tokens]),
            "labels": torch.tensor(expression.answer),
            "gold_heads": torch.tensor(expression.heads),
        }
        heads.append(network(**train.collate([row]))["heads"])
    assert torch.equal(*heads)


def test_words_alone_have_heads():
    import model
    import train

    torch.manual_seed(0)
    network = model.TreeModel(get_estimator("ste_marginals"), TREES).eval()
    found = generate(8, 20, seed=1, operators=OPERATORS)
    rows = [
        {
            "input_ids": torch.tensor([TOKENS.index(token) for token in one.tokens]),
            "labels": torch.tensor(one.answer),
            "gold_heads": torch.tensor(one.heads),
        }
        for one in found
    ]
    together = network(**train.collate(rows))
    for place, row in enumerate(rows):
        alone = network(**train.collate([row]))
        assert torch.equal(alone["heads"][0], together["heads"][place, : len(found[place].words)])
        torch.testing.assert_close(alone["logits"][0], together["logits"][place], rtol=1e-4, atol=1e-5)
    gold = model.TreeModel(None, TREES).eval()(**train.collate(rows))
    assert torch.equal(gold["heads"], train.collate(rows)["gold_heads"])


def test_a_command_makes_each_run_once(monkeypatch, tmp_path, capsys):
    import train

    monkeypatch.setattr(train, "EXPRESSIONS", 300)
    small = {"up to 20 tokens": (20, {"longest": 20}), "160 to 200": (5, {"longest": 30, "shortest": 21})}
    monkeypatch.setattr(train, "TESTS", {**dict.fromkeys(["21 to 40, depth 5", "80 to 100"], (5, {"longest": 20})), **small})
    (tmp_path / "test.tsv").write_text("4\t( [MAX 2 4 ] )\n7\t[FIRST 7 1 ]\n")
    rows = ["bilstm", "gold trees", "perturb_and_map"]
    command = ["reproduce.py", "table", "--rows", *rows, "--seeds", "1", "--steps", "6", "--jobs", "1"]
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
    assert (tmp_path / "listops.svg").stat().st_size > 1000


def test_the_recipe_can_be_taken_apart():
    import train

    whole = train.schedules("perturb_and_map", [])
    assert set(whole) == {"entropy_bonus", "counter_temperature", "noise_scale"}
    assert [round(whole["noise_scale"](done), 3) for done in (0, 0.4, 0.8, 1)] == [1, 1, 0.05, 0.05]
    assert [round(whole["counter_temperature"](done), 3) for done in (0, 0.6, 1)] == [1, 0.1, 0.1]
    assert set(train.schedules("marginals", ["whole steps"])) == {"entropy_bonus"}
    assert train.schedules("marginals", ["entropy bonus"])["entropy_bonus"](0) == 0
