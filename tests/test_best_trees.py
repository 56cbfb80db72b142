"""The k best structures, and cross-entropy and KL between two distributions, against enumeration."""

import brute_force
import pytest
import torch

from hf_latent import Categorical

LENGTHS = torch.tensor([4, 3, 2, 1, 0])


@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_k_best_trees(tree, k):
    scores = torch.randn(5, 4, 5, dtype=torch.float64)
    best = tree.top_k(scores, LENGTHS, k)
    assert best.structures.shape == (5, k, 4, 5)
    for row, n in enumerate(LENGTHS.tolist()):
        structures, values = brute_force.tree_scores(scores[row, :n, : n + 1], tree.projective, tree.single_root)
        order = values.argsort(descending=True)[:k]
        count = len(order)
        torch.testing.assert_close(best.scores[row, :count], values[order])
        assert (best.scores[row, count:] == -torch.inf).all()
        assert torch.equal(best.structures[row, :count, :n, : n + 1], structures[order])
        assert best.structures[row, count:].count_nonzero() == 0
        assert best.structures[row, :, n:].count_nonzero() == 0


def test_equal_scores_give_different_trees(tree):
    best = tree.top_k(torch.zeros(1, 4, 5), None, 12)
    assert len({tuple(arcs.flatten().tolist()) for arcs in best.structures[0]}) == 12
    assert (best.scores == 0).all()


def test_the_best_tree_is_the_argmax_also_under_no_grad(tree):
    scores = torch.randn(3, 9, 10, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(tree.top_k(scores, None, 3).structures[:, 0], tree.argmax(scores))


def test_the_k_best_categories():
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 9.0], [1.0, 2.0, 3.0]])
    best = Categorical().top_k(scores, torch.tensor([3, 2, 0]), 4)
    assert best.structures.argmax(2)[0, :3].tolist() == [1, 2, 0]
    assert best.scores.tolist() == [[3, 2, 1, -torch.inf], [5, 1, -torch.inf, -torch.inf], [0.0] + [-torch.inf] * 3]
    assert best.structures[1, 2:].count_nonzero() == 0
    assert best.structures[2].count_nonzero() == 0


def test_k_must_be_positive(tree):
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1, got 0"):
        tree.top_k(torch.randn(1, 2, 3), k=0)


def test_cross_entropy_and_kl(tree):
    scores, other = torch.randn(2, 5, 4, 5, dtype=torch.float64)
    cross, divergence = tree.cross_entropy(scores, other, LENGTHS), tree.kl_divergence(scores, other, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        own = brute_force.tree_scores(scores[row, :n, : n + 1], tree.projective, tree.single_root)[1].log_softmax(0)
        theirs = brute_force.tree_scores(other[row, :n, : n + 1], tree.projective, tree.single_root)[1].log_softmax(0)
        torch.testing.assert_close(cross[row], -(own.exp() * theirs).sum())
        torch.testing.assert_close(divergence[row], (own.exp() * (own - theirs)).sum())
    assert tree.kl_divergence(scores, scores, LENGTHS).abs().max() < 1e-12
    torch.testing.assert_close(tree.cross_entropy(scores, scores, LENGTHS), tree.entropy(scores, LENGTHS))


@pytest.mark.parametrize("operation", ["cross_entropy", "kl_divergence"])
def test_divergences_have_exact_gradients(tree, operation):
    scores, other = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: getattr(tree, operation)(a, b, torch.tensor([3, 2])), (scores, other))


def test_the_other_scores_are_named_in_errors(tree):
    with pytest.raises(ValueError, match=r"`other` must have the shape of `scores`, \(1, 2, 3\)"):
        tree.kl_divergence(torch.randn(1, 2, 3), torch.randn(1, 3, 4))
    with pytest.raises(ValueError, match=r"`other` must be finite .* but other\[0, 0, 0\] is nan"):
        tree.kl_divergence(torch.randn(1, 2, 3), torch.full((1, 2, 3), torch.nan))


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
