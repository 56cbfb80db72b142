"""Universal Dependencies and other treebanks."""

import os

from datasets import Dataset

from hf_latent.trees import read_conllu


def load_conllu(path: str | os.PathLike) -> Dataset:
    """Columns `words` and `heads` (for each word 0 for ROOT or j for the j-th word); a row a sentence.

    Raises:
        FileNotFoundError, ValueError: see `read_conllu`.
    """
    trees = read_conllu(path)
    return Dataset.from_dict({"words": [list(tree.words) for tree in trees], "heads": [list(tree.heads) for tree in trees]})
