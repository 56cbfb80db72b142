"""Subsets of the items of a row."""

from hf_latent.structures.subset.subset import Subset
from hf_latent.structures.subset.subset_chain import SubsetChain, with_neighbours

__all__ = ["Subset", "SubsetChain", "with_neighbours"]
