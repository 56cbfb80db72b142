"""Projections of points near marginals, against those by trees alone."""

import pytest
import torch

from hf_latent import DependencyTree, Independent
from hf_latent.structures.dependency_tree.cpu.from_marginals import SHORT
from hf_latent.structures.dependency_tree.cpu.operations import TreeKernels
from hf_latent.structures.dependency_tree.reference.masking import arc_mask

LENGTHS = torch.tensor([9, 0, 13, 1, 12, 3, 14, 2, 10, 11])
KINDS = [(projective, single_root) for projective in (True, False) for single_root in (True, False)]


def problem(scale: float, step: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and how far to go from their marginals."""
    scores = scale * torch.randn(10, 14, 15, dtype=torch.float64)
    return scores, step * torch.randn(10, 14, 15, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scale", "step"), [(0.01, 0.003), (1.0, 0.01), (3.0, 0.1), (1.0, 3.0)])
def test_many_points_come_within_two_percent(kind, scale, step):
    tree = DependencyTree(*kind)
    scores, change = problem(scale, step)
    targets = tree.marginals(scores, LENGTHS) + change
    exact = tree.sparsemap(targets, LENGTHS, 1e-12)
    found, rows = TreeKernels().project_by_marginals(tree, targets, scores, LENGTHS, tol=1e-4, most_points=400)
    assert rows.tolist() == [length == 0 or length > SHORT for length in LENGTHS]
    way = (exact - tree.marginals(scores, LENGTHS)).flatten(1).norm(dim=1)
    error = (found - exact).flatten(1).norm(dim=1)
    assert (error[rows] <= 0.02 * way[rows] + 1e-9).all(), error / way


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scale", "step"), [(0.01, 0.003), (1.0, 0.01), (10.0, 0.1)])
def test_few_points_are_near_the_projection_and_in_the_polytope(kind, scale, step):
    tree = DependencyTree(*kind)
    scores, change = problem(scale, step)
    start = tree.marginals(scores, LENGTHS)
    exact = tree.sparsemap(start + change, LENGTHS, 1e-12)
    found = tree.project_from_marginals(start + change, scores, LENGTHS)
    way = (exact - start).flatten(1).norm(dim=1)
    assert ((found - exact).flatten(1).norm(dim=1) <= 0.2 * way + 1e-9).all()
    assert not found[~arc_mask(LENGTHS, 14)].any()
    torch.testing.assert_close(tree.sparsemap(found, LENGTHS, 1e-12), found, rtol=0, atol=1e-5)


def test_short_sentences_are_exact(tree):
    scores, change = problem(1.0, 0.3)
    scores, change, lengths = scores[:, :6, :7], change[:, :6, :7], LENGTHS.clamp(max=6)
    targets = tree.marginals(scores, lengths) + change
    exact = tree.sparsemap(targets, lengths, 1e-12)
    torch.testing.assert_close(tree.project_from_marginals(targets, scores, lengths), exact, rtol=0, atol=1e-4)


def test_nowhere_to_go(tree):
    scores, _ = problem(1.0, 0.0)
    start = tree.marginals(scores, LENGTHS)
    torch.testing.assert_close(tree.project_from_marginals(start, scores, LENGTHS), start, rtol=0, atol=1e-6)
    # What is the same for all heads of a word is the same for all trees.
    torch.testing.assert_close(
        tree.project_from_marginals(start + 5.0 * torch.randn(10, 14, 1), scores, LENGTHS), start, rtol=0, atol=1e-6
    )


def test_company_makes_no_difference(tree):
    scores, change = problem(1.0, 0.1)
    targets = tree.marginals(scores, LENGTHS) + change
    together = tree.project_from_marginals(targets, scores, LENGTHS)
    for row in range(10):
        alone = tree.project_from_marginals(targets[row : row + 1], scores[row : row + 1], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


def test_scores_beyond_the_kernels_range():
    """Their sums are more than a number can hold: trees alone do it."""
    tree = DependencyTree()
    scores, change = problem(1.0, 0.1)
    scores = scores.clone()
    scores[0] = -1e4 * torch.arange(15.0)  # all must hang from the first words, which not all can
    start = tree.marginals(scores, LENGTHS)
    found, rows = TreeKernels().project_by_marginals(DependencyTree(), start + change, scores, LENGTHS)
    exact = tree.sparsemap(start + change, LENGTHS, 1e-12)
    assert not rows[0] or (found[0] - exact[0]).norm() < 0.1
    assert (tree.project_from_marginals(start + change, scores, LENGTHS)[0] - exact[0]).norm() < 0.1


def test_from_a_tree_few_trees_are_near_the_projection_and_in_the_polytope(tree):
    """The inner step of SPIGOT: exact for short sentences, and at most so many trees for long ones."""
    scores, change = problem(0.3, 0.3)
    start = tree.argmax(scores, LENGTHS)
    exact = tree.sparsemap(start + change, LENGTHS, 1e-12, start=start)
    found = tree.project_from(start + change, start, LENGTHS)
    way, error = (exact - start).flatten(1).norm(dim=1), (found - exact).flatten(1).norm(dim=1)
    assert (error <= 0.1 * way + 1e-9).all()
    assert (error[LENGTHS <= 6] <= 0.0015 * way[LENGTHS <= 6] + 1e-9).all()
    torch.testing.assert_close(tree.sparsemap(found, LENGTHS, 1e-12), found, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[4\] is none"):
        tree.project_from(scores, start.index_fill(0, torch.tensor([4]), 0.5), LENGTHS)
    pairs = Independent(tree).project_from(
        (start + change).unflatten(0, (5, 2)), start.unflatten(0, (5, 2)), LENGTHS.view(5, 2)
    )
    torch.testing.assert_close(pairs.flatten(0, 1), found)


def test_several_choices():
    tree = DependencyTree()
    scores, change = problem(1.0, 0.1)
    targets = tree.marginals(scores, LENGTHS) + change
    expected = tree.project_from_marginals(targets, scores, LENGTHS)
    pairs = Independent(tree).project_from_marginals(
        targets.unflatten(0, (5, 2)), scores.unflatten(0, (5, 2)), LENGTHS.view(5, 2)
    )
    torch.testing.assert_close(pairs.flatten(0, 1), expected)


def test_what_is_wrong_is_named():
    tree, scores = DependencyTree(), torch.randn(2, 8, 9)
    with pytest.raises(ValueError, match="`targets` must be a tensor of the shape of `scores`"):
        tree.project_from_marginals(scores[:1], scores)
    targets = scores.clone()
    targets[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"`targets` must be finite.*targets\[1, 2, 0\] is nan"):
        tree.project_from_marginals(targets, scores)
    with pytest.raises(ValueError, match="`scores` must be finite"):
        tree.project_from_marginals(scores, targets)
