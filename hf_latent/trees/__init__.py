"""What a tree is to a person: words and their heads, read, drawn, compared and counted."""

from hf_latent.moved import with_old_names
from hf_latent.trees.conllu import read_conllu, read_conllu_sentences, to_conllu, write_conllu
from hf_latent.trees.conllu_sentence import ConlluSentence
from hf_latent.trees.displacy import to_displacy
from hf_latent.trees.drawing import side_by_side, write_png
from hf_latent.trees.parsing_scores import parsing_scores, parsing_scores_of_trees
from hf_latent.trees.statistics import attachment_score, baseline_trees, tree_agreement, tree_statistics
from hf_latent.trees.tree import Tree

with_old_names(__name__)

__all__ = [
    "ConlluSentence",
    "Tree",
    "attachment_score",
    "baseline_trees",
    "parsing_scores",
    "parsing_scores_of_trees",
    "read_conllu",
    "read_conllu_sentences",
    "side_by_side",
    "to_conllu",
    "to_displacy",
    "tree_agreement",
    "tree_statistics",
    "write_conllu",
    "write_png",
]
