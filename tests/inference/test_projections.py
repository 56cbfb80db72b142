"""The compiled active set takes any structure's argmax: here, subsets of k words, and chains of tags."""

import numpy as np
import pytest
import torch

from hf_latent.inference import active_set
from hf_latent.inference.cpu import projections
from hf_latent.inference.cpu.active_set import ROOM
from hf_latent.inference.cpu.batch import DONE, NOT_CONVERGED
from hf_latent.inference.cpu.compiling import Kernel, part
from hf_latent.inference.cpu.projections import derivative, gathered


@part
def best_subset(scores, k, choices):
    """A group for each word, whose one part is chosen or not."""
    choices[:] = -1
    for place in np.argsort(-scores[:, 0])[:k]:
        choices[place] = 0


@part
def best_chain(scores, tags, choices):
    """A group for each pair of neighbours, a part for each pair of their tags."""
    best, before = np.zeros(tags), np.empty((scores.shape[0], tags), np.int64)
    for group in range(scores.shape[0]):
        now = np.full(tags, -np.inf)
        for one in range(scores.shape[1]):
            value = best[one // tags] + scores[group, one]
            if value > now[one % tags]:
                now[one % tags], before[group, one % tags] = value, one // tags
        best = now
    tag = best.argmax()
    for group in range(scores.shape[0] - 1, -1, -1):
        choices[group] = before[group, tag] * tags + tag
        tag = before[group, tag]


@Kernel
def project(values, sizes, chains, option, tol, max_iter, point, gaps, status):
    slots = projections.free_slots(3, values.shape[1])
    choices, place, busy = np.empty(values.shape[1], np.int32), 0, True
    while busy:
        busy = False
        for slot in range(len(slots.owner)):
            while slots.owner[slot] < 0 and place < len(values):
                projections.admit(slots, slot, place, values[place, : sizes[place]].copy())
                place += 1
            if slots.owner[slot] >= 0:
                own = choices[: sizes[slots.owner[slot]]]
                if chains:
                    best_chain(slots.rest[slot], option, own)
                else:
                    best_subset(slots.rest[slot], option, own)
                target = point[slots.owner[slot], : len(own)]
                projections.take(slots, slot, own, chains, tol, max_iter, status, gaps, target)
                busy = True
    return projections.found_in(slots)


def run(values: np.ndarray, sizes: np.ndarray, chains: bool, option: int, tol: float = 1e-12, max_iter: int = 500):
    point, gaps, status = np.zeros_like(values), np.zeros(len(values)), np.zeros(len(values), np.int8)
    found = project(values, sizes, chains, option, tol, max_iter, point, gaps, status)
    return gathered([found], values.shape[1], point, gaps, status, torch.empty(0, dtype=torch.float64)), status


def python(values: np.ndarray, sizes: np.ndarray, chains: bool, option: int) -> active_set.ActiveSet:
    """The same by `hf_latent.inference.active_set`."""
    inside = torch.arange(values.shape[1]) < torch.from_numpy(sizes)[:, None]
    scores = torch.from_numpy(values)
    allowed = inside[:, :, None] & ~scores.isneginf()

    def oracle(flat: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        vertices = torch.zeros(len(flat), *values.shape[1:], dtype=torch.float64)
        for k, row in enumerate(rows.tolist()):
            own, choices = flat[k].view(values.shape[1:])[: sizes[row]].numpy(), np.empty(sizes[row], np.int32)
            (best_chain if chains else best_subset)(own, option, choices)
            for group, choice in enumerate(choices):
                if choice >= 0:
                    vertices[k, group, choice] = 1
        return vertices.flatten(1)

    return active_set.project(scores.flatten(1), allowed.flatten(1), oracle, 1e-12)


CASES = {"subsets": (False, 3, (9, 1)), "chains": (True, 3, (6, 9))}


@pytest.mark.parametrize("forbid", [False, True], ids=["all allowed", "-inf"])
@pytest.mark.parametrize("name", CASES)
def test_as_the_active_set_in_python(name, forbid):
    chains, option, event = CASES[name]
    generator = np.random.default_rng(5)
    values, sizes = 0.4 * generator.standard_normal((20, *event)), generator.integers(4, event[0] + 1, 20)
    if forbid:
        values[:, 1, 0] = -np.inf
    solution, status = run(values, sizes, chains, option)
    expected = python(values, sizes, chains, option)
    assert (status == DONE).all()
    point = expected.point.view(solution.point.shape)
    torch.testing.assert_close(solution.point, point, rtol=0, atol=1e-9)
    assert (solution.point[:, 1, 0] == 0).all() or not forbid
    if not chains:  # a point of the polytope of subsets
        assert torch.allclose(solution.point.sum((1, 2)), torch.full((20,), float(option), dtype=torch.float64))
    # The vertices found, with their weights, make up the point, and its derivative.
    direction = torch.from_numpy(generator.standard_normal(values.shape))
    inside = torch.arange(event[0]) < torch.from_numpy(sizes)[:, None]
    change = derivative(direction, solution.choices, solution.weights, solution.counts)
    moved = active_set.derivative(expected.vertices, expected.weights, direction.flatten(1)).view_as(change)
    torch.testing.assert_close(change, moved, rtol=0, atol=1e-7)
    assert (change[~inside] == 0).all()
    made = torch.zeros_like(solution.point)
    rows = torch.repeat_interleave(torch.arange(20), solution.counts)
    for row, choices, weight in zip(rows, solution.choices, solution.weights, strict=True):
        groups = (choices >= 0).nonzero()[:, 0]
        made[row, groups, choices[groups]] += weight
    torch.testing.assert_close(made, solution.point, rtol=0, atol=1e-9)


def test_room_grows_and_iterations_end():
    """All subsets of 8 of 40 words are alike: more vertices than there is room for at first."""
    generator = np.random.default_rng(6)
    values, sizes = 1e-3 * generator.standard_normal((4, 40, 1)), np.full(4, 40)
    solution, status = run(values, sizes, False, 8)
    assert (status == DONE).all()
    assert solution.counts.max() > ROOM
    torch.testing.assert_close(
        solution.point, torch.from_numpy(values - values.mean(1, keepdims=True) + 0.2), rtol=0, atol=1e-5
    )
    stopped, status = run(values, sizes, False, 8, max_iter=5)
    assert (status == NOT_CONVERGED).all()
    assert not stopped.converged.any()
    assert torch.allclose(stopped.point.sum((1, 2)), torch.full((4,), 8.0, dtype=torch.float64))
