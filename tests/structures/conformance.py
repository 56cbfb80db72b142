"""What every structure must do, for a test class to inherit.

    class TestLinearChain(StructureConformance):
        structure = LinearChain(tags=3)
        lengths = [4, 3, 2, 1, 0, 4]

        def event(self, longest):
            return max(longest - 1, 0), 3, 3

        def is_structure(self, z, length):
            pairs = [pair.nonzero().tolist() for pair in z]
            return all(len(pair) == 1 for pair in pairs) and all(a[0][1] == b[0][0] for a, b in pairwise(pairs))

        def count(self, length):
            return 3**length if length > 1 else 1

`Suite` says what such a class gives.
"""

from structures.against_enumeration import AgainstEnumeration
from structures.compiled import Compiled
from structures.inputs import Inputs
from structures.invariants import Invariants
from structures.with_estimators import WithEstimators


class StructureConformance(AgainstEnumeration, Invariants, Inputs, Compiled, WithEstimators):
    """All of the suite."""
