"""The k best trees where scores are at the limit. (For all else: tests/structures.)"""

import pytest
import torch


def test_scores_at_the_limit_lose_no_tree(tree):
    for others in (-1e100, 0.0):
        scores = torch.full((1, 3, 4), others, dtype=torch.float64)
        scores[0, :, 0] = -6e99 if others else -6e11
        count = len(tree.enumerate(3))
        assert tree.top_k(scores, None, 20).scores.isfinite().sum() == count
    scores[0, :, 0] = -6e99  # out of reach beside 0: no tree is left without ROOT
    with pytest.raises(ValueError, match=r"leave a structure to choose in every row, but in scores\[0\]"):
        tree.top_k(scores)


def test_sets_without_the_best_lose_no_tree(tree):
    """Beside the best score, all else is forbidden or not in the same way, whatever set it is looked at in."""
    scores = torch.zeros(1, 3, 4, dtype=torch.float64)
    scores[0, 0, 0], scores[0, 1, 3] = 1e30, -1e13
    assert tree.top_k(scores, None, 20).scores.isfinite().sum() == len(tree.enumerate(3))
