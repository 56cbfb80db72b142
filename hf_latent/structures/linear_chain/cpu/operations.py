"""The kernels on chains with tensors in and out, for scores of tags `(batch, n, tags)` and of pairs of them.

`emissions` and `transitions` are checked, with -inf for what is forbidden; `transitions` are `(tags, tags)`, or
`(batch, n - 1, tags, tags)`. Sums of a few rows lie beyond what the kernels can hold in a number; for those, the reference
answers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_latent.inference.checks import raise_no_structure
from hf_latent.inference.cpu.batch import NO_STRUCTURE, OUT_OF_RANGE, Batch, array
from hf_latent.inference.cpu.simd import WIDTH
from hf_latent.inference.cpu.threads import run_groups, scratch
from hf_latent.structures.linear_chain import tag_reference as reference
from hf_latent.structures.linear_chain.cpu import k_best, kernels


class Sentences(Batch):
    """A batch of sentences, in float64."""

    def __init__(self, emissions: Tensor, transitions: Tensor, lengths: Tensor) -> None:
        emissions = emissions.double()
        super().__init__(emissions, lengths, emissions.shape[1], lambda scores, _: torch.ones_like(scores, dtype=torch.bool))
        self.own_transitions = transitions.dim() == 4
        self.given_transitions, self.given_lengths = transitions, lengths
        self.pairs = pairs_of(transitions)

    def go(self, kernel: Any, nanoseconds: float, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        """Calls the kernel for all groups; one takes about so many `nanoseconds` for a pair of tags of each word."""
        tags = self.values.shape[2]
        shared = self.pairs.shape[:2] == (1, 1)

        def work(first: int, last: int) -> None:
            space = scratch(kernels.room(self.largest_size(first), tags, shared) * WIDTH)
            space = space[: len(space) // (2 * WIDTH) * (2 * WIDTH)]
            arguments = self.sizes, self.order, first, last, space
            kernel(self.values, self.pairs, *inputs, *arguments, *outputs, self.status, self.cancelled)

        self.run(work, nanoseconds * tags * (tags + 10), 1, required=False)

    def left(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None:
        """The rows that the kernels leave to the reference, with their emissions, transitions and lengths.

        Raises:
            ValueError: one of them has no structure.
        """
        if self.all_done:
            return None
        rows = torch.from_numpy(np.flatnonzero(self.status == OUT_OF_RANGE))
        transitions = self.given_transitions[rows] if self.own_transitions else self.given_transitions
        own = self.scores[rows], transitions.double(), self.given_lengths[rows]
        missing = ~argmax(*own)[1]
        if missing.any():
            raise_no_structure(int(rows[missing.int().argmax()]))
        return rows, own


def pairs_of(transitions: Tensor) -> np.ndarray:
    """As the kernels take them: `(batch, n - 1, tags²)`, or `(1, 1, tags²)`."""
    found = array(transitions.double())
    own = found.shape[:2] if found.ndim == 4 else (1, 1)
    return found.reshape(*own, found.shape[-1] ** 2)


def argmax(emissions: Tensor, transitions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The tags of a best sequence, `(batch, n)`, -1 beyond; and which rows have one, `(batch,)`."""
    batch = Sentences(emissions, transitions, lengths)
    found = np.full(batch.values.shape[:2], -1)
    batch.go(kernels.best_tags, 1.5, (), (found,))
    return torch.from_numpy(found), torch.from_numpy(batch.status != NO_STRUCTURE)


def log_partition(emissions: Tensor, transitions: Tensor, lengths: Tensor) -> Tensor:
    """`(batch,)` in float64."""
    batch = Sentences(emissions, transitions, lengths)
    out = np.zeros(len(batch.values))
    batch.go(kernels.log_partition, 3, (), (out,))
    result = torch.from_numpy(out)
    if left := batch.left():
        result[left[0]] = reference.log_partition(*left[1])
    return result


def expectations(emissions: Tensor, transitions: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of tags times each row's weight; those of pairs too, summed where they are scored alike. In float64."""
    batch = Sentences(emissions, transitions, lengths)
    nodes, pairs = np.zeros_like(batch.values), _room_for_pairs(batch)
    batch.go(kernels.expectations, 6, (array(weights.double()),), (nodes, pairs))
    found = torch.from_numpy(nodes), _summed(pairs, transitions)
    if left := batch.left():
        _add(batch, left[0], found, reference.expectations(*left[1], weights[left[0]].double()))
    return found


def expectations_derivative(
    emissions: Tensor,
    transitions: Tensor,
    lengths: Tensor,
    weights: Tensor,
    node_direction: Tensor,
    pair_direction: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of the expectations when the scores move along the directions, and those of log Z, `(batch,)`."""
    batch = Sentences(emissions, transitions, lengths)
    nodes, pairs, rates = np.zeros_like(batch.values), _room_for_pairs(batch), np.zeros(len(batch.values))
    directions = array(node_direction.double()), pairs_of(pair_direction)
    batch.go(kernels.expectations_derivative, 14, (array(weights.double()), *directions), (nodes, pairs, rates))
    found = torch.from_numpy(nodes), _summed(pairs, transitions), torch.from_numpy(rates)
    if left := batch.left():
        rows = left[0]
        along = node_direction[rows].double(), (pair_direction[rows] if batch.own_transitions else pair_direction).double()
        *moved, rates_of_rows = reference.expectations_derivative(*left[1], weights[rows].double(), *along)
        _add(batch, rows, found[:2], moved)
        found[2][rows] = rates_of_rows
    return found


def sample(emissions: Tensor, transitions: Tensor, lengths: Tensor, seeds: Tensor) -> Tensor:
    """Drawn tags, `(samples, batch, n)`, -1 beyond, one sequence for each of `seeds (samples, batch)`."""
    batch = Sentences(emissions, transitions, lengths)
    found = np.full((len(seeds), *batch.values.shape[:2]), -1)
    batch.go(kernels.sample_tags, 3 + len(seeds), (seeds.contiguous().numpy().view(np.uint64),), (found,))
    result = torch.from_numpy(found)
    if left := batch.left():
        result[:, left[0]] = reference.sample(*left[1], seeds[:, left[0]])
    return result


def top_k(emissions: Tensor, transitions: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The tags of the k best sequences, `(batch, k, n)`, -1 beyond; and their scores `(batch, k)` in float64."""
    values, pairs, sizes = array(emissions.double()), pairs_of(transitions), lengths.numpy().copy()
    found, scores = np.full((len(values), k, values.shape[1]), -1), np.full((len(values), k), -np.inf)
    cancelled = np.zeros(1, np.bool_)

    def work(first: int, last: int) -> None:
        k_best.k_best_tags(values, pairs, sizes, first, last, found, scores, cancelled)

    if len(values):
        run_groups(work, 10.0 * k * values.shape[2] ** 2 * (sizes + 1.0), cancelled)
    return torch.from_numpy(found), torch.from_numpy(scores)


def _room_for_pairs(batch: Sentences) -> np.ndarray:
    groups = -(-len(batch.values) // WIDTH)
    shape = batch.pairs.shape
    return np.zeros((groups, *shape[1:]) if shape[:2] == (1, 1) else shape)


def _summed(pairs: np.ndarray, transitions: Tensor) -> Tensor:
    """What the kernels wrote, in the shape of the transitions; sums of groups one after the other, whatever the threads did."""
    found = torch.from_numpy(pairs)
    return (found if found.shape[:2] == transitions.shape[:2] else found.sum(0)).reshape(transitions.shape)


def _add(batch: Sentences, rows: Tensor, found: tuple[Tensor, Tensor], theirs: Any) -> None:
    """The results of rows that the reference answered for, into those of the batch."""
    found[0][rows] = theirs[0]
    if batch.own_transitions:
        found[1][rows] = theirs[1]
    else:
        found[1].add_(theirs[1])
