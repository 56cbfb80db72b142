"""torch-struct as a second opinion on trees, conversions, and scores at the limit. (For all else: tests/structures.)"""

import pytest
import torch
import torch_struct

from hf_latent import Categorical, DependencyTree, SegmentScores
from hf_latent.structures.dependency_tree import conversions
from hf_latent.structures.segmentation import conversions as segmentations


@pytest.mark.parametrize("lengths", [[5, 3, 1], [4, 4, 2]])
def test_projective_trees_agree_with_torch_struct(lengths):
    lengths, tree = torch.tensor(lengths), DependencyTree(projective=True)
    scores = torch.randn(3, int(lengths.max()), int(lengths.max()) + 1)
    theirs = conversions.to_torch_struct(scores).requires_grad_()  # torch-struct fails on scores that need no gradient
    oracle = torch_struct.DependencyCRF(theirs, lengths, multiroot=True)
    torch.testing.assert_close(tree.log_partition(scores, lengths), oracle.partition, rtol=1e-4, atol=1e-4)
    marginals = conversions.from_torch_struct(oracle.marginals.detach())
    torch.testing.assert_close(tree.marginals(scores, lengths), marginals, rtol=1e-3, atol=1e-4)
    assert torch.equal(tree.argmax(scores, lengths), conversions.from_torch_struct(oracle.argmax.detach()))


def test_non_projective_trees_agree_with_torch_struct():
    scores = torch.randn(3, 6, 7)
    oracle = torch_struct.NonProjectiveDependencyCRF(conversions.to_torch_struct(scores).requires_grad_(), multiroot=True)
    tree = DependencyTree(projective=False)
    torch.testing.assert_close(tree.log_partition(scores), oracle.partition, rtol=1e-3, atol=1e-3)
    marginals = conversions.from_torch_struct(oracle.marginals.detach())
    torch.testing.assert_close(tree.marginals(scores), marginals, rtol=1e-2, atol=1e-3)


def test_segmentations_agree_with_torch_struct():
    """Of one length: beyond the shortest sentence of a batch, torch-struct 0.5 loses segments of more than one word."""
    segments, transitions, lengths = torch.randn(2, 7, 3, 2), torch.randn(2, 2), torch.tensor([7, 7])
    scores = SegmentScores(segments, transitions)
    edges = segmentations.to_torch_struct(segments, transitions)
    oracle = torch_struct.SemiMarkovCRF(edges.requires_grad_(), lengths + 1)
    torch.testing.assert_close(scores.log_partition(), oracle.partition, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.marginals(), oracle.marginals.detach()[:, :, 1:].sum(4), rtol=1e-3, atol=1e-4)
    best = segmentations.segments_from_choices(scores.argmax(), 3, 2)
    assert torch.equal(best, oracle.argmax.detach()[:, :, 1:].sum(4))


def test_conversions_are_inverses():
    arcs = DependencyTree().marginals(torch.randn(2, 4, 5))
    torch.testing.assert_close(conversions.from_torch_struct(conversions.to_torch_struct(arcs)), arcs)
    torch.testing.assert_close(conversions.from_supar(conversions.to_supar(arcs)), arcs)
    heads = torch.tensor([[2, 0, 2, -1], [0, -1, -1, -1]])
    assert torch.equal(conversions.heads_from_arcs(conversions.arcs_from_heads(heads), torch.tensor([3, 1])), heads)


def test_conversion_to_torch_struct_has_heads_in_rows():
    heads = torch.tensor([[2, 0, 2]])  # words 1 and 3 hang from word 2
    expected = torch.tensor([[[0.0, 0, 0], [1, 1, 1], [0, 0, 0]]])
    assert torch.equal(conversions.to_torch_struct(conversions.arcs_from_heads(heads)), expected)


def test_categories_with_scores_as_large_as_float32_goes():
    """What fills the padding must lie below all of them."""
    scores, lengths = torch.tensor([[-1e38, -1e38, 0.0], [0.0, torch.finfo(torch.float32).min, 9.0]]), torch.tensor([2, 2])
    structure = Categorical()
    assert structure.argmax(scores, lengths).tolist() == [[1, 0, 0], [1, 0, 0]]
    assert structure.marginals(scores, lengths).tolist() == [[0.5, 0.5, 0], [1, 0, 0]]
    assert structure.sparsemap(scores, lengths).tolist() == [[0.5, 0.5, 0], [1, 0, 0]]
    assert structure.sample(scores, lengths, 3).sum() == 6
    assert structure.top_k(scores, lengths, 3).scores[:, 1].isfinite().tolist() == [True, False]  # forbidden beside 0
    assert structure.log_partition(scores, lengths).tolist() == pytest.approx([-1e38, 0.0])


def test_padding_leaves_no_mark_on_the_gradient_of_a_structure():
    z = torch.rand(1, 3, requires_grad=True)
    Categorical().score(z, torch.tensor([[1.0, 2.0, -torch.inf]]), torch.tensor([2])).sum().backward()
    assert z.grad.tolist() == [[1, 2, 0]]


def test_kl_between_scores_at_the_limit():
    scores = torch.full((1, 3), 1e100, dtype=torch.float64)
    assert Categorical().kl_divergence(scores, -scores) == 0
