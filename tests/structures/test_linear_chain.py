from hf_latent import LinearChain
from structures.conformance import StructureConformance


class TestLinearChain(StructureConformance):
    structure = LinearChain(2)
    lengths = [3, 2, 1, 0, 3]
    without_values = ("argmax", "log_partition", "marginals", "sample", "top_k")

    def event(self, longest):
        return max(longest - 1, 0), self.structure.tags, self.structure.tags

    def is_structure(self, z, length):
        if not (z.sum((1, 2)) == 1).all():
            return False
        first, second = z.sum(2).argmax(1), z.sum(1).argmax(1)
        return bool((second[:-1] == first[1:]).all())

    def count(self, length):
        return self.structure.tags**length if length > 1 else 1
