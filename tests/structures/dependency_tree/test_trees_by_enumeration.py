"""All trees are there, kernels agree with the reference, and what holds for larger trees. (For all else: tests/structures.)"""

import brute_force
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent import DependencyTree
from hf_latent.structures.dependency_tree.conversions import heads_from_arcs
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference import arborescence, eisner, matrix_tree
from hf_latent.structures.dependency_tree.reference.trees import normalized as normalize

LENGTHS = torch.tensor([5, 4, 3, 2, 1, 0, 5])


def random_scores(scale: float = 2.0) -> torch.Tensor:
    return torch.randn(7, 5, 6, dtype=torch.float64) * scale


def test_enumerate_gives_all_trees(tree):
    for n in range(6):
        ours = {tuple(z.flatten().tolist()) for z in tree.enumerate(n)}
        true = {tuple(z.flatten().tolist()) for z in brute_force.trees(n, tree.projective, tree.single_root)}
        assert ours == true


def test_counts_follow_the_known_formulas():
    """Cayley: (n + 1)^(n - 1) rooted forests; single-root non-projective n^(n - 1)."""
    for n in range(1, 7):
        assert len(DependencyTree(False, False).enumerate(n)) == (n + 1) ** (n - 1)
        assert len(DependencyTree(False, True).enumerate(n)) == n ** (n - 1)
        zeros = torch.zeros(1, n, n + 1, dtype=torch.float64)
        assert DependencyTree(False, False).log_partition(zeros).exp().item() == pytest.approx((n + 1) ** (n - 1))


def test_kernels_agree_with_the_reference(tree):
    """The compiled argmax against the vectorized one, on integer scores, so that ties are many."""
    scores = torch.randint(-3, 4, (64, 9, 10)).double()
    lengths = torch.randint(0, 10, (64,))
    reference = (eisner if tree.projective else arborescence).argmax(normalize(scores, lengths)[0], lengths, tree.single_root)
    best = tree.argmax(scores, lengths)
    for arcs in (best, reference):
        heads = heads_from_arcs(arcs, lengths)
        assert all(is_tree(row[None, :n], tree.projective, tree.single_root) for row, n in zip(heads, lengths, strict=True))
    torch.testing.assert_close(tree.score(best, scores, lengths), tree.score(reference, scores, lengths))


def test_matrix_tree_agrees_with_determinant_and_inverse():
    """The subtraction-free elimination against the Laplacian's determinant and its inverse."""
    scores = torch.randn(4, 8, 9, dtype=torch.float64)
    lengths = torch.full((4,), 8)
    words = scores[:, :, 1:].exp() * (1 - torch.eye(8))
    laplacian = torch.diag_embed(words.sum(2) + scores[:, :, 0].exp()) - words
    normalized, offset = normalize(scores, lengths)
    ours = matrix_tree.log_partition(normalized, lengths, False) + offset
    torch.testing.assert_close(ours, laplacian.logdet())
    root_marginals = scores[:, :, 0].exp() * torch.linalg.inv(laplacian).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(matrix_tree.marginals(normalized, lengths, False)[:, :, 0], root_marginals)


sizes = st.lists(st.integers(0, 7), min_size=1, max_size=4)


@given(sizes, st.integers(0, 2**31 - 1), st.sampled_from([0.0, 0.1, 1.0, 100.0, 1e4]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_invariants(sizes, seed, scale, projective, single_root):
    """Trees are trees, and points lie in the polytope, whatever the scores."""
    tree = DependencyTree(projective, single_root)
    lengths, n = torch.tensor(sizes), max(sizes)
    scores = scale * torch.randn(len(sizes), n, n + 1, generator=torch.Generator().manual_seed(seed))
    best = tree.argmax(scores, lengths)
    words = (torch.arange(n) < lengths[:, None]).float()
    for heads, size in zip(heads_from_arcs(best, lengths), sizes, strict=True):
        assert is_tree(heads[None, :size], projective, single_root)
    for point in (best, tree.marginals(scores, lengths), tree.sparsemap(scores, lengths)):
        assert point.min() >= 0 if n else True
        torch.testing.assert_close(point.sum(2), words, rtol=0, atol=1e-4)
        assert (tree.score(best - point, scores, lengths) >= -1e-3 * max(scale, 1)).all()
        if single_root and n:
            torch.testing.assert_close(point[:, :, 0].sum(1), (lengths > 0).float(), rtol=0, atol=1e-4)
    assert (tree.log_prob(best, scores, lengths) <= 0).all()
    assert (tree.entropy(scores, lengths) >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_large_scores_stay_finite(tree, dtype):
    scores = ((torch.rand(4, 12, 13) * 2 - 1) * 1e4).to(dtype).requires_grad_()
    lengths = torch.tensor([12, 7, 1, 0])
    for name in ("marginals", "sparsemap", "log_partition", "entropy"):
        value = getattr(tree, name)(scores, lengths)
        assert value.isfinite().all()
        assert value.dtype == dtype or (value.dim() == 1 and value.dtype == torch.float32)
        scores.grad = None
        (value.float() * torch.rand(value.shape)).sum().backward()
        assert scores.grad.isfinite().all()
        assert scores.grad.dtype == dtype


def test_small_differences_of_large_scores(tree):
    """Entropy and log-probability of float32 scores far from 0 equal those of the scores moved to 0."""
    scores = torch.randint(-3, 4, (2, 20, 21)).float()
    far = scores + 2.0**20  # exactly representable
    torch.testing.assert_close(tree.entropy(far), tree.entropy(scores))
    best = tree.argmax(scores)
    torch.testing.assert_close(tree.log_prob(best, far), tree.log_prob(best, scores))


def test_the_generic_active_set_agrees_with_the_kernel(tree):
    """`Structure.sparsemap`, which has only the argmax, against the compiled one."""
    from hf_latent import Structure

    scores = random_scores(1.0).requires_grad_()
    generic = Structure.sparsemap(tree, scores, LENGTHS)
    compiled = tree.sparsemap(scores, LENGTHS)
    torch.testing.assert_close(generic, compiled, rtol=0, atol=1e-6)
    direction = torch.randn_like(scores)
    (one,) = torch.autograd.grad((generic * direction).sum(), scores)
    (other,) = torch.autograd.grad((compiled * direction).sum(), scores)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
