"""What is latent: the set Z of a structure, and the operations on it."""

from hf_latent.moved import with_old_names
from hf_latent.structures.categorical import Categorical
from hf_latent.structures.dependency_tree import DependencyTree
from hf_latent.structures.independent import Independent
from hf_latent.structures.linear_chain import ChainScores, LinearChain
from hf_latent.structures.segmentation import Segmentation, SegmentScores
from hf_latent.structures.structure import Structure, TopK
from hf_latent.structures.subset import Subset, SubsetChain, with_neighbours
from hf_latent.structures.torch_struct_adapter import from_torch_struct

with_old_names(__name__)

__all__ = [
    "Categorical",
    "ChainScores",
    "DependencyTree",
    "Independent",
    "LinearChain",
    "SegmentScores",
    "Segmentation",
    "Structure",
    "Subset",
    "SubsetChain",
    "TopK",
    "from_torch_struct",
    "with_neighbours",
]
