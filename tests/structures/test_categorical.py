from hf_latent import Categorical
from structures.conformance import StructureConformance


class CategoricalConformance(StructureConformance):
    structure = Categorical()
    lengths = [4, 3, 2, 1, 0, 4]
    known_faults = {r"test_one_graph.*\[projections\]": "torch.compile does not take the gradient of entmax's sparsemax"}

    def event(self, longest):
        return (longest,)

    def is_structure(self, z, length):
        return z.sum() == (length > 0)

    def count(self, length):
        return max(length, 1)


class TestCategorical(CategoricalConformance):
    pass
