from math import prod

from hf_latent import Categorical, DependencyTree, Independent
from structures.conformance import StructureConformance
from structures.test_categorical import CategoricalConformance
from structures.test_dependency_tree import TreeConformance


class IndependentConformance(StructureConformance):
    """Two choices in a row, each as the class `single` has it."""

    lengths = [[3, 2], [1, 3], [0, 2], [0, 0], [1, 2]]
    single: type[StructureConformance]
    choices = True
    # The entropies are those of `Structure`, which each single structure compiles.
    compiles = ("argmax", "marginals", "sparsemap", "log_partition", "log_prob", "sample", "top_k")

    def alone(self):
        found = self.single()
        found.structure = self.structure.structure
        return found

    def event(self, longest):
        return 2, *self.alone().event(longest)

    def is_structure(self, z, lengths):
        alone = self.alone()
        corners = [alone.corner(length) for length in lengths]
        inside = [choice[corner] for choice, corner in zip(z, corners, strict=True)]
        within = sum(part.count_nonzero() for part in inside) == z.count_nonzero()
        return within and all(map(alone.is_structure, inside, lengths))

    def count(self, lengths):
        return prod(map(self.alone().count, lengths))


class TestCategories(IndependentConformance):
    structure, single = Independent(Categorical()), CategoricalConformance


class TestProjectiveTrees(IndependentConformance):
    structure, single = Independent(DependencyTree()), TreeConformance
    without_values = TreeConformance.without_values


class TestProjectiveTreesWithASingleRoot(TestProjectiveTrees):
    structure = Independent(DependencyTree(single_root=True))
    compiles = ()  # each kind of tree is compiled by itself, and the choices above; all together take a minute


class TestNonProjectiveTrees(TestProjectiveTreesWithASingleRoot):
    structure = Independent(DependencyTree(projective=False))


class TestNonProjectiveTreesWithASingleRoot(TestProjectiveTreesWithASingleRoot):
    structure = Independent(DependencyTree(projective=False, single_root=True))
