"""`torch.ops.hf_latent.*`, called by anybody with anything: an error that names the argument, and never a crash."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_latent import DependencyTree

OPERATORS = torch.ops.hf_latent
KIND = (True, False)
SCORES = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([4, 2, 0])
TREES = DependencyTree().argmax(SCORES)
SEEDS = torch.arange(6).view(2, 3)


def right_arguments() -> dict[str, dict[str, object]]:
    """Of each operator, by name."""
    kind = {"projective": True, "single_root": False}
    _, heads, weights, counts, _, _ = OPERATORS.tree_sparsemap(SCORES, LENGTHS, None, 1e-6, 100, *KIND)
    both = {"scores": SCORES, "lengths": LENGTHS}
    return {
        "tree_argmax": both | kind,
        "tree_log_partition": both | kind,
        "tree_marginals": both | kind,
        "tree_marginals_vjp": both | {"grad": SCORES.exp()} | kind,
        "tree_sample": both | {"seeds": SEEDS} | kind,
        "tree_top_k": both | kind | {"k": 2},
        "tree_sparsemap": both | {"start": TREES} | kind | {"tol": 1e-6, "max_iter": 100},
        "tree_project_from": {"targets": SCORES, "start": TREES, "lengths": LENGTHS} | kind,
        "tree_project_from_marginals": {"targets": SCORES.exp(), "scores": SCORES, "lengths": LENGTHS} | kind,
        "tree_sparsemap_vjp": {
            "grad": SCORES.exp(),
            "lengths": LENGTHS,
            "choices": heads,
            "weights": weights,
            "counts": counts,
        }
        | kind,
    }


def test_all_operators_are_tried():
    names = {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "hf_latent::tree_" in name}
    assert names == right_arguments().keys()


WRONG = [
    (["scores", "targets", "grad"], SCORES[0], ValueError),
    (["scores", "targets", "grad"], SCORES[:, :, :4], ValueError),
    (["scores", "targets", "grad"], SCORES.long(), TypeError),
    (["scores", "targets", "grad"], SCORES.bool(), TypeError),
    (["scores", "targets", "grad"], SCORES.cfloat(), TypeError),
    (["scores", "targets", "grad"], SCORES.to_sparse(), TypeError),
    (["lengths"], LENGTHS[:2], ValueError),
    (["lengths"], LENGTHS[:, None], ValueError),
    (["lengths"], LENGTHS.float(), TypeError),
    (["lengths"], LENGTHS + 1, ValueError),
    (["lengths"], LENGTHS - 1, ValueError),
    (["lengths"], torch.tensor([4, 2, 2**40]), ValueError),
    (["grad", "targets", "start"], SCORES[:2], ValueError),
    (["grad", "targets", "start"], torch.zeros(3, 2, 3), ValueError),
    (["grad", "targets", "start"], torch.zeros(0), ValueError),
    (["start"], torch.zeros_like(SCORES), ValueError),
    (["start"], torch.full_like(SCORES, torch.nan), ValueError),
    (["seeds"], SEEDS[:, :2], ValueError),
    (["seeds"], SEEDS[0], ValueError),
    (["seeds"], SEEDS.int(), TypeError),
    (["seeds"], SEEDS.double(), TypeError),
    (["choices"], torch.zeros(5, 3, dtype=torch.long), ValueError),
    (["choices"], torch.zeros(0, dtype=torch.long), ValueError),
    (["weights"], torch.ones(1, dtype=torch.double), ValueError),
    (["weights"], torch.ones(100, dtype=torch.float), TypeError),
    (["counts"], torch.tensor([1, 1, 2**40]), ValueError),
    (["counts"], torch.tensor([-5, 100, 1]), ValueError),
    (["counts"], torch.tensor([1, 1]), ValueError),
    (["counts"], torch.tensor([1.0, 1.0, 1.0]), TypeError),
    (["k", "max_iter"], 0, ValueError),
    (["k", "max_iter"], -(2**40), ValueError),
    (["tol"], float("nan"), ValueError),
    (["tol"], -1.0, ValueError),
]


@pytest.mark.parametrize("operator", right_arguments())
def test_a_wrong_argument_is_named(operator):
    right = right_arguments()[operator]
    for names, value, error in WRONG:
        for name in set(names) & right.keys():
            # Where the first tensor is another, any that should agree with it may be named.
            others = "|".join(right) if name in ("scores", "targets", "grad") else name
            with pytest.raises(error, match=f"`({others})`|{name}\\["):
                getattr(OPERATORS, operator)(**right | {name: value})


def test_choices_out_of_range_are_named():
    right = right_arguments()["tree_sparsemap_vjp"]
    for head in (5, 2**40, -2, -(2**40)):
        choices = right["choices"].clone()
        choices[0, 0] = head
        with pytest.raises(ValueError, match="`choices` must lie between -1"):
            OPERATORS.tree_sparsemap_vjp(**right | {"choices": choices})


def scattered(value: object) -> object:
    """The same numbers, elsewhere in memory: in another order, with gaps."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.stack([value, torch.zeros_like(value)], -1).movedim(0, -1).contiguous().movedim(-1, 0)[..., 0]


@pytest.mark.parametrize("operator", right_arguments())
@pytest.mark.parametrize("change", ["scattered", "int32 lengths", "float16", "negated"])
def test_what_means_the_same_gives_the_same(operator, change):
    right = right_arguments()[operator]
    if change == "scattered":
        other = {name: scattered(value) for name, value in right.items()}
    elif change == "int32 lengths":
        other = right | {"lengths": LENGTHS.int()}
    elif change == "negated":  # a view that torch negates when it is read
        negated = {name: right[name] for name in {"scores", "grad", "targets"} & right.keys()}
        other = right | {name: torch.complex(value, -value).conj().imag for name, value in negated.items()}
        assert all(other[name].is_neg() for name in negated)
    else:
        floats = {
            name: value for name, value in right.items() if isinstance(value, torch.Tensor) and value.dtype == torch.float32
        }
        right = right | {name: value.half().float() for name, value in floats.items()}
        other = right | {name: right[name].half() for name in floats}
    expected, found = getattr(OPERATORS, operator)(**right), getattr(OPERATORS, operator)(**other)
    expected, found = ([value] if isinstance(value, torch.Tensor) else value for value in (expected, found))
    for one, two in zip(expected, found, strict=True):
        tolerance = {"rtol": 2e-3, "atol": 2e-3} if change == "float16" else {"rtol": 0, "atol": 0}
        if one.shape == two.shape or change != "float16":  # the trees of a projection may be others
            torch.testing.assert_close(one.double(), two.double(), **tolerance)


FUZZ = """
import random, sys, warnings
sys.path.insert(0, sys.argv[1])
import torch
from test_raw_operators import OPERATORS, right_arguments

source = random.Random(int(sys.argv[2]))
torch.manual_seed(0)
warnings.simplefilter("ignore")

def number():
    return source.choice([0, 1, 2, 3, 4, 5, -1, -7, 2**31, 2**63 - 1, -(2**63)])

def tensor():
    shape = [source.choice([0, 1, 2, 3, 4, 5, 6]) for _ in range(source.choice([0, 1, 1, 2, 3, 3, 4]))]
    if source.random() < 0.5 and len(shape) == 3:
        shape[2] = shape[1] + 1
    dtype = source.choice([torch.float32, torch.float64, torch.float16, torch.int64, torch.int64, torch.int32, torch.bool])
    value = torch.randn(shape).mul(source.choice([1, 1e4, 1e38])).to(dtype)
    if value.numel() and source.random() < 0.5 and dtype is not torch.bool:
        value.view(-1)[source.randrange(value.numel())] = (
            source.choice([torch.nan, torch.inf, -torch.inf, 1e30]) if dtype.is_floating_point else number() % 2**31
        )
    if value.dim() > 1 and source.random() < 0.3:
        value = value.transpose(0, 1)
    if source.random() < 0.05:
        value = value.to("meta")
    return value

def other(value):
    if isinstance(value, bool):
        return source.random() < 0.5
    if isinstance(value, (int, float)):
        return type(value)(number()) if abs(number()) < 100 else value
    if value is None or source.random() < 0.5:
        return source.choice([tensor(), tensor(), None])
    value = value.clone()
    if value.numel():
        flat = value.view(-1)
        for _ in range(source.choice([1, 3])):
            flat[source.randrange(len(flat))] = (
                source.choice([torch.nan, torch.inf, -torch.inf, 1e30, -3.0]) if value.is_floating_point() else number()
            )
    return value[: source.choice([1, 2, 3, 100])]

done = refused = 0
for turn in range(int(sys.argv[3])):
    name, right = source.choice(list(right_arguments().items()))
    for changed in source.sample(sorted(right), source.choice([1, 1, 2])):
        if changed not in ("k", "max_iter"):
            right[changed] = other(right[changed])
    try:
        getattr(OPERATORS, name)(**right)
        done += 1
    except (ValueError, TypeError) as error:
        assert any(f"`{argument}" in str(error) for argument in [*right, "scores", "start"]), (name, error)
        refused += 1
    except (NotImplementedError, RuntimeError) as error:
        # torch's own: a value of another type than the schema has, or tensors without data.
        meta = any(isinstance(value, torch.Tensor) and value.is_meta for value in right.values())
        missing = any(value is None for value in right.values())
        assert meta or missing, (name, right, error)
print(done, refused)
"""


def call_with_anything(seed: int, turns: int) -> None:
    """Calls operators with arguments of all kinds, in a process that may crash."""
    command = [sys.executable, "-c", FUZZ, str(Path(__file__).parent), str(seed), str(turns)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    worked, refused = map(int, done.stdout.split())
    assert worked > turns / 20
    assert refused > turns / 4


def test_nothing_crashes():
    call_with_anything(1, 1500)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_nothing_crashes_in_many_turns(seed):
    call_with_anything(seed, 10_000)
