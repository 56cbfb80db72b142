"""Structures that a user writes, with three methods: all else follows from them."""

import sys
from math import comb
from pathlib import Path

import pytest
import torch

from hf_latent import Independent
from structures.conformance import StructureConformance
from structures.test_check_structure import Pair

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from custom_structure import Subset


class TestSubset(StructureConformance):
    structure = Subset()
    lengths = [4, 3, 2, 1, 0, 4]
    compiles = ("argmax", "log_partition", "log_prob")
    far = 2.0**10

    def event(self, longest):
        return (longest,)

    def is_structure(self, z, length):
        return z.shape == (length,)

    def count(self, length):
        return 2**length


class TestPair(StructureConformance):
    structure = Pair()
    lengths = [5, 3, 2, 4]
    compiles = ()
    far = 2.0**10

    def event(self, longest):
        return (longest,)

    def is_structure(self, z, length):
        return z.sum() == 2

    def count(self, length):
        return comb(length, 2)


def test_a_row_without_a_structure_is_named_by_its_choice():
    scores = torch.zeros(2, 2, 4)
    scores[1, 0, 1:] = -torch.inf  # one item is left, of two that are wanted
    for name in ("argmax", "log_partition", "marginals", "sparsemap"):
        with pytest.raises(ValueError, match=r"structure to choose in every row, but in scores\[1, 0\] each"):
            getattr(Independent(Pair()), name)(scores)
