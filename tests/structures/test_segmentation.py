from hf_latent import Segmentation
from structures.conformance import StructureConformance


class TestSegmentation(StructureConformance):
    structure = Segmentation(3, labels=2)
    lengths = [3, 2, 1, 0, 3]
    without_values = ("argmax", "log_partition", "marginals", "sample", "top_k")

    def event(self, longest):
        return longest, self.structure.max_length, self.structure.labels

    def is_structure(self, z, length):
        end = 0
        for begin, size, _ in sorted(z.nonzero().tolist()):
            if begin != end:
                return False
            end += size + 1
        return end == length

    def count(self, length):
        """By the recursion over the last segment."""
        if length == 0:
            return 1
        sizes = range(1, min(self.structure.max_length, length) + 1)
        return self.structure.labels * sum(self.count(length - size) for size in sizes)


class TestSegmentationWithoutLabels(TestSegmentation):
    structure = Segmentation(4)
    lengths = [5, 4, 2, 1, 0, 5]
