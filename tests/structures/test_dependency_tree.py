"""Counts: Cayley's formula, and for projective trees A001764 and A006013 of the OEIS (Yuret 1998)."""

from math import comb

from hf_latent import DependencyTree
from structures.conformance import StructureConformance


class TreeConformance(StructureConformance):
    lengths = [4, 3, 2, 1, 0, 3]
    without_values = ("argmax", "log_partition", "marginals", "sample", "top_k")

    def event(self, longest):
        return longest, longest + 1

    def is_structure(self, z, length):
        if not (z.sum(1) == 1).all():
            return False
        heads = z.argmax(1).tolist()
        if self.structure.single_root and length and heads.count(0) != 1:
            return False
        for word in range(length):  # it reaches ROOT in no more steps than there are words
            head = word + 1
            for _ in range(length):
                head = heads[head - 1] if head else 0
            if head:
                return False
        spans = [sorted((word, head)) for word, head in enumerate(heads, start=1)]
        crosses = any(a < c < b < d for a, b in spans for c, d in spans)
        return not (self.structure.projective and crosses)

    def count(self, n):
        if not n:
            return 1
        if self.structure.projective:
            return comb(3 * n - 2, n - 1) // n if self.structure.single_root else comb(3 * n, n) // (2 * n + 1)
        return n ** (n - 1) if self.structure.single_root else (n + 1) ** (n - 1)


class TestProjective(TreeConformance):
    structure = DependencyTree()


class TestProjectiveWithASingleRoot(TreeConformance):
    structure = DependencyTree(single_root=True)


class TestNonProjective(TreeConformance):
    structure = DependencyTree(projective=False)


class TestNonProjectiveWithASingleRoot(TreeConformance):
    structure = DependencyTree(projective=False, single_root=True)
