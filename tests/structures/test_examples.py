"""Structures that a user writes, with three methods: all else follows from them."""

import sys
from math import comb
from pathlib import Path

from structures.conformance import StructureConformance
from structures.test_check_structure import Pair

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from custom_structure import Subset

# What is inherited from `Structure`, and is not right yet.
FAULTS = {
    r"test_scores_of_any_size\[1e\+20-torch.float16\]": "the log-partition overflows in half precision",
}


class TestSubset(StructureConformance):
    structure = Subset()
    lengths = [4, 3, 2, 1, 0, 4]
    compiles = ("argmax", "log_partition", "log_prob")
    coarse, far, known_faults = True, 2.0**10, FAULTS

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
    silent = ("argmax", "log_partition")
    coarse, far, known_faults = True, 2.0**10, FAULTS

    def event(self, longest):
        return (longest,)

    def is_structure(self, z, length):
        return z.sum() == 2

    def count(self, length):
        return comb(length, 2)
