"""Dependency trees: their definition, and the algorithms on them for each device."""

from hf_latent.structures.dependency_tree.dependency_tree import DependencyTree

__all__ = ["DependencyTree"]
