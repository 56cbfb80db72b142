"""Universal Dependencies and other treebanks."""

import os
from collections.abc import Collection

from datasets import Dataset

from hf_latent.trees import Tree, read_conllu


def load_conllu(
    path: str | os.PathLike,
    single_root: bool = False,
    relations: Collection[str] | None = None,
    bad_sentences: str = "error",
) -> Dataset:
    """Columns `words`, `heads` (for each word 0 for ROOT or j for the j-th word) and `relations` (names); a row a sentence.

    Args and errors: see `read_conllu`.
    """
    trees = read_conllu(path, single_root, relations, bad_sentences)
    columns = {
        "words": [list(tree.words) for tree in trees],
        "heads": [list(tree.heads) for tree in trees],
        "relations": [_relations(tree) for tree in trees],
    }
    return Dataset.from_dict(columns)


def _relations(tree: Tree) -> list[str]:
    return list(tree.relations) or ["_"] * len(tree.words)
