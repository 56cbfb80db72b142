"""Subsets: which items of a row are chosen, a given number of them or between two numbers."""

from hf_latent.structures.subset.subset import Subset

__all__ = ["Subset"]
