"""What a tree is to a person: words and their heads, read, drawn, compared and counted."""

from hf_latent.moved import with_old_names
from hf_latent.trees.conllu import read_conllu, write_conllu
from hf_latent.trees.drawing import side_by_side, write_png
from hf_latent.trees.statistics import attachment_score, baseline_trees, tree_agreement, tree_statistics
from hf_latent.trees.tree import Tree

with_old_names(__name__)

__all__ = [
    "Tree",
    "attachment_score",
    "baseline_trees",
    "read_conllu",
    "side_by_side",
    "tree_agreement",
    "tree_statistics",
    "write_conllu",
    "write_png",
]
