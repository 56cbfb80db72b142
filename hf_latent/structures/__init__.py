"""What is latent: the set Z of a structure, and the operations on it."""

from hf_latent.structures.categorical import Categorical
from hf_latent.structures.dependency_tree import DependencyTree
from hf_latent.structures.independent import Independent
from hf_latent.structures.structure import Structure, TopK

__all__ = ["Categorical", "DependencyTree", "Independent", "Structure", "TopK"]
