"""The synthetic clusters: training side by side is what training one by one is, and the commands write what they say."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hf_latent import Categorical, get_estimator
from hf_latent.estimators import functional

FOLDER = Path(__file__).parents[2] / "examples" / "synthetic_clusters"
STEPS, SEEDS, RATES = 20, (1, 2, 3), (1e-3, 2e-3, 1e-4)
ETA = 2.0


@pytest.fixture(autouse=True)
def example(use_example):
    use_example(FOLDER)


def side_by_side(name, options, protocol, clusters=3):
    """The weights of all runs after some steps, by the example."""
    import clusters as task
    import training

    data = task.make_data(clusters)["train"]
    protocol = task.PROTOCOLS[protocol].of_training(name)
    same = {"clusters": clusters, "estimator": name, "options": options, "protocol": protocol, "steps": STEPS, "data_seed": 42}
    models = training.Models([{**same, "seed": seed} for seed in SEEDS], group=2)
    optimizer = training.Adam(models, list(RATES))
    for _ in range(STEPS):
        total = models.loss(data, data.x.T.contiguous())
        optimizer.step(torch.autograd.grad(total, list(models.weights.values()), materialize_grads=True))
    weights = models.weights
    return data, [torch.cat([weights["encoder"][:, run], weights["decoder"][:, run]]).detach() for run in range(len(SEEDS))]


def assert_same(found, one_by_one):
    for run, (seed, rate) in enumerate(zip(SEEDS, RATES, strict=True)):
        torch.testing.assert_close(found[run], one_by_one(seed, rate), rtol=1e-3, atol=1e-4)


def applied(bilinear, z, x):
    """What `nn.Bilinear` computes, faster."""
    return torch.stack([((x @ weight.T) * z).sum(1) for weight in bilinear.weight], 1) + bilinear.bias


def by_the_code(name, x, y, seed, rate, clusters=3):
    """One run as the paper's code has it, with modules and the optimizer of torch."""
    torch.manual_seed(seed)
    encoder, bilinear, structure = nn.Linear(100, clusters), nn.Bilinear(clusters, 100, 2), Categorical()
    optimizer = torch.optim.Adam([*encoder.parameters(), *bilinear.parameters()], lr=rate)

    def decoder(z, x):
        return applied(bilinear, z, x)

    for _ in range(STEPS):
        scores, surrogate = encoder(x), 0.0
        marginals = scores.detach().softmax(1)
        if name in ("spigot_ce", "spigot_eg"):
            point = marginals.clone().requires_grad_()
            gamma = torch.autograd.grad(cross_entropy(decoder(point, x), y), point)[0]
            ahead = (
                structure.sparsemap(marginals - ETA * gamma)
                if name == "spigot_ce"
                else (marginals.log() - ETA * gamma).softmax(1)
            )
            z, surrogate = structure.argmax(scores), (scores * (marginals - ahead)).sum()
        elif name in ("spigot", "ste_identity"):
            z = getattr(functional, name)(structure, scores, step_size=ETA)
        elif name == "ste_marginals":
            soft = marginals * (1 - marginals) * scores
            z = structure.argmax(scores) + soft - soft.detach()
        else:
            z = {"marginals": structure.marginals, "sparsemap": structure.sparsemap}[name](scores)
        optimizer.zero_grad()
        (cross_entropy(decoder(z, x), y) + surrogate - (surrogate.detach() if surrogate else 0.0)).backward()
        optimizer.step()
    return torch.cat([encoder.weight, bilinear.weight[1] - bilinear.weight[0]]).detach()


@pytest.mark.parametrize(
    "name", ["marginals", "sparsemap", "ste_marginals", "ste_identity", "spigot", "spigot_ce", "spigot_eg"]
)
def test_runs_side_by_side_are_those_of_the_papers_code(name):
    options = {"step_size": ETA} if name in ("ste_identity", "spigot", "spigot_ce", "spigot_eg") else {}
    data, found = side_by_side(name, options, "code")
    assert_same(found, lambda seed, rate: by_the_code(name, data.x, data.y.long(), seed, rate))


def by_the_text(name, options, x, y, seed, rate, clusters=3):
    """One run with the library's estimator, whose task loss is that of each example, and one logit."""
    torch.manual_seed(seed)
    encoder, decoder = nn.Linear(100, clusters), nn.Bilinear(clusters, 100, 1)
    with torch.no_grad():
        decoder.weight.mul_((clusters / 100) ** 0.5)
    estimator = get_estimator(name, **options)
    state = estimator.initial_state()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=rate)

    def task_loss(z):
        return binary_cross_entropy_with_logits(applied(decoder, z, x)[:, 0], y, reduction="none")

    for _ in range(STEPS):
        scores = encoder(x).T.contiguous().T  # so that noise is drawn column by column
        latent = estimator.resume(Categorical(), scores, None, task_loss, state)
        state = latent.state
        optimizer.zero_grad()
        (task_loss(latent.value) + latent.loss).mean().backward()
        optimizer.step()
    return torch.cat([encoder.weight, decoder.weight[0]]).detach()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sparsemap", {}),
        ("ste_marginals", {}),
        ("perturb_and_map", {}),
        ("perturbed_marginals", {}),
        ("spigot", {"step_size": 0.1, "num_steps": 2}),
        ("spigot_ce", {"step_size": 0.1, "num_steps": 2}),
        ("spigot_eg", {"step_size": 0.1, "num_steps": 2}),
    ],
)
def test_runs_side_by_side_are_those_of_the_library_one_by_one(name, options):
    data, found = side_by_side(name, options, "text")
    assert_same(found, lambda seed, rate: by_the_text(name, options, data.x, data.y, seed, rate))


@pytest.mark.parametrize("protocol", ["code", "text"])
@pytest.mark.parametrize("baseline", ["none", "moving_average"])
def test_a_run_does_not_depend_on_those_beside_it(monkeypatch, protocol, baseline):
    together = side_by_side("score_function", {"baseline": baseline}, protocol)[1]
    monkeypatch.setattr(sys.modules[__name__], "SEEDS", SEEDS[1:2])
    monkeypatch.setattr(sys.modules[__name__], "RATES", RATES[1:2])
    torch.testing.assert_close(side_by_side("score_function", {"baseline": baseline}, protocol)[1][0], together[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_columns_do_what_categorical_does(dtype, scale):
    from clusters import Columns

    columns, rows = Columns(), Categorical()
    scores = (scale * torch.randn(4, 300, dtype=dtype, generator=torch.Generator().manual_seed(0))).T.requires_grad_()
    gradient = torch.randn(300, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for operation in ("marginals", "sparsemap"):
        values = [getattr(structure, operation)(scores) for structure in (columns, rows)]
        torch.testing.assert_close(*values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(*(torch.autograd.grad((value * gradient).sum(), scores)[0] for value in values))
    assert torch.equal(columns.argmax(scores), rows.argmax(scores))
    tied = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]).to(dtype)
    assert columns.argmax(tied).tolist() == [[0, 1, 0], [1, 0, 0]]
    sample = columns.sample(scores)
    torch.testing.assert_close(columns.log_prob(sample, scores), rows.log_prob(sample, scores))
    torch.testing.assert_close(columns.score(gradient, scores), rows.score(gradient, scores))


def test_noise_of_the_code_may_be_infinite(monkeypatch):
    """A uniform number of 0 in one of millions is noise of -inf, which is no gradient, not NaN."""
    import paper_code
    from clusters import Columns

    monkeypatch.setattr(torch, "rand_like", lambda scores: torch.tensor([[0.0, 0.5, 0.9]]))
    scores = torch.zeros(1, 3, requires_grad=True)
    value = paper_code.DiagonalSoftmax(gumbel=True)(Columns(), scores).value
    gradient = torch.autograd.grad(value[0, 2], scores)[0]
    assert value.tolist() == [[0, 0, 1]]
    assert gradient.isfinite().all()
    assert gradient[0, 2] > 0


def test_the_projection_ends_whatever_the_rounding():
    """Rounding once lowered a threshold again and again, and an entry came in and went out for ever."""
    from clusters import Columns

    scores = torch.tensor([[0.06492242217063904, -0.6673762798309326, -0.8012269139289856]])
    torch.testing.assert_close(Columns().sparsemap(scores), Categorical().sparsemap(scores))


def test_samples_of_columns_come_as_often_as_they_should():
    from clusters import Columns

    torch.manual_seed(0)
    scores = torch.tensor([0.0, 1.0, 2.0])[:, None].expand(3, 100_000).T
    sample = Columns().sample(scores)[0]
    assert (sample.sum(1) == 1).all()
    torch.testing.assert_close(sample.mean(0), scores[0].softmax(0), atol=0.005, rtol=0)


def test_the_data_are_those_of_the_papers_code():
    """The draws are in the order of that code; splits are balanced by their thresholds; test points have labels by two."""
    from clusters import SIZES, make_data

    data = make_data(3)
    assert {name: len(data[name].x) for name in SIZES} == SIZES
    torch.manual_seed(42)
    centres, _ = torch.randn(3, 100), torch.randn(3, 100)
    z = torch.randint(0, 3, (6000,))
    x = centres[z] + 0.1 * torch.randn(6000, 100)
    torch.testing.assert_close(data["train"].x, x[:5000])
    torch.testing.assert_close(data["validation"].x, x[5000:])
    assert abs(data["train"].y.mean() - 0.5) < 0.03
    changed = data["test"].y != data["test_by_training"].y
    assert 0 < changed.double().mean() < 0.1


def test_the_clusters_can_be_found_from_the_labels():
    """After 1000 steps, a surrogate gradient is far above the linear model and knows two of three clusters at least."""
    from clusters import PROTOCOLS
    from rows import ROWS, Setting
    from training import train

    rows = {row.name: row for row in ROWS}
    settings = {"linear": Setting(2e-3), "STE-I": Setting(2e-3, 0.1)}
    runs = [rows[name].run(3, setting, 2, PROTOCOLS["text"], steps=1001) for name, setting in settings.items()]
    linear, latent = (train([run])[0]["test"][-1] for run in runs)
    assert latent["accuracy"] > linear["accuracy"] + 8
    assert latent["v_measure"] > 65
    assert linear["v_measure"] == 0


def test_the_best_setting_is_chosen_on_validation_and_four_starts(tmp_path, monkeypatch):
    import study
    from clusters import Protocol
    from rows import ROWS, Setting

    seen = []

    def train(runs):
        seen.extend(runs)
        good = [run["learning_rate"] == 1e-4 and run["options"].get("step_size") != 1.0 for run in runs]
        figures = [{"accuracy": 60.0 + 9 * one, "v_measure": 0.0} for one in good]
        test = [{"accuracy": 60.0 - 9 * one, "v_measure": 0.0} for one in good]
        return [
            {"steps": [0], "validation": [own], "test": [other], "test_by_training": [other]}
            for own, other in zip(figures, test, strict=True)
        ]

    monkeypatch.setattr(study, "train", train)
    rows = [row for row in ROWS if row.name in ("softmax", "SPIGOT")]
    grid = study.Study(tmp_path).grid(rows, 3, Protocol())
    chosen = {row.name: study.best(tried).setting for row, tried in grid.items()}
    assert chosen == {"softmax": Setting(1e-4), "SPIGOT": Setting(1e-4, 0.1)}
    assert {run["seed"] for run in seen} == {301, 302, 303, 304}
    assert len(seen) == 3 * 4 + 5 * 4


def test_how_far_starts_support_a_figure(monkeypatch):
    from study import support

    assert support([0.0] * 11 + [100.0], 0.0) == "100 %"
    assert support([0.0] * 6 + [100.0] * 6, 50.0) == "45 %"  # two and two: 15 · 15 of 495 ways
    assert support([70.0], 72.0) == "100 %"


def test_the_commands(tmp_path, capsys, monkeypatch):
    """Each on a few steps; a second time, nothing is trained; packed runs can be unpacked."""
    pytest.importorskip("matplotlib")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
        runpy.run_path(str(FOLDER / "reproduce.py"), run_name="__main__")

    few = [
        "--steps",
        2,
        "--seeds",
        301,
        "--output_dir",
        tmp_path,
        "--rows",
        "linear",
        "softmax",
        "score function *",
        "SPIGOT-CE",
    ]
    for what in ("table", "figure2", "figure3", "differences", "labels", "cost", "pack"):
        run(what, *few, "--rounds", 1)
    files = {file: file.stat().st_mtime for file in (tmp_path / "runs").iterdir()}
    run("table", *few)
    assert {file: file.stat().st_mtime for file in (tmp_path / "runs").iterdir()} == files
    written = (tmp_path / "table2.md").read_text()
    assert sum(line.startswith("|") for line in written.splitlines()) == 2 * 6 * (2 + 4)
    assert "20 random encoders put the 3 clusters into 2." in written
    assert "| SPIGOT-CE |" in capsys.readouterr().out
    for name in ("figure2", "figure3-code", "figure3-text"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert "| =" in (tmp_path / "differences.md").read_text()
    run("table", *few, "--output_dir", tmp_path / "again", "--packed", tmp_path / "runs.jsonl.gz")
    assert {file.name: file.read_text() for file in (tmp_path / "again" / "runs").iterdir()} == {
        file.name: file.read_text() for file in files
    }
    assert (tmp_path / "again" / "table2.md").read_text() == written
