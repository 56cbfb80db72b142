"""`Categorical` against its closed forms, a structure that a user writes, and torch-struct as a second opinion on trees."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import entmax
import pytest
import torch
import torch_struct
from conftest import TREE_ESTIMATORS

from hf_latent import Categorical, DependencyTree, Structure, get_estimator
from hf_latent.structures.dependency_tree import conversions

LENGTHS = torch.tensor([4, 3, 2, 1, 0])


def test_categorical_by_enumeration():
    scores = torch.randn(5, 4, dtype=torch.float64)
    structure = Categorical()
    marginals, entropy = structure.marginals(scores, LENGTHS), structure.entropy(scores, LENGTHS)
    best, partition = structure.argmax(scores, LENGTHS), structure.log_partition(scores, LENGTHS)
    projection = structure.sparsemap(scores, LENGTHS)
    assert torch.equal(structure.enumerate(4), torch.eye(4))
    for row, k in enumerate(LENGTHS.tolist()):
        for point in (marginals, best, projection):
            assert (point[row, k:] == 0).all()
        if k == 0:
            assert partition[row] == 0
            assert entropy[row] == 0
            continue
        valid = scores[row, :k]
        torch.testing.assert_close(marginals[row, :k], valid.softmax(0))
        torch.testing.assert_close(projection[row, :k], entmax.sparsemax(valid, dim=0))
        torch.testing.assert_close(partition[row], valid.logsumexp(0))
        torch.testing.assert_close(entropy[row], torch.distributions.Categorical(logits=valid).entropy())
        assert best[row].argmax() == valid.argmax()
        torch.testing.assert_close(structure.log_prob(best, scores, LENGTHS)[row], valid.log_softmax(0).max())


@pytest.mark.parametrize("operation", ["marginals", "sparsemap", "log_partition", "entropy"])
def test_categorical_gradcheck(operation):
    scores = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: getattr(Categorical(), operation)(s, LENGTHS), (scores,))


@pytest.mark.parametrize("scale", [1e4, 1e20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_categorical_with_large_scores(scale, dtype):
    scores = (torch.randn(5, 4) * scale).to(dtype)
    for name in ("argmax", "marginals", "sparsemap"):
        point = getattr(Categorical(), name)(scores, LENGTHS)
        assert point.dtype == dtype
        torch.testing.assert_close(point.float().sum(1), (LENGTHS > 0).float(), rtol=0, atol=1e-2)


@dataclass(frozen=True)
class Subsets(Structure):
    """Exactly two of k items: what a user writes, the four required methods and nothing else."""

    event_dims: ClassVar[int] = 1

    def argmax(self, scores, lengths=None):
        scores, lengths = self.check(scores, lengths)
        masked = scores.detach().masked_fill(~self.mask(scores, lengths), -1e30)
        return torch.zeros_like(scores).scatter(1, masked.topk(2, dim=1).indices, 1.0) * self.mask(scores, lengths)

    def log_partition(self, scores, lengths=None):
        scores, lengths = self.check(scores, lengths)
        masked = scores.masked_fill(~self.mask(scores, lengths), -1e30)
        pairs = masked[:, :, None] + masked[:, None, :]
        upper = torch.ones(scores.shape[1], scores.shape[1]).triu(1).bool()
        return pairs[:, upper].logsumexp(1)

    def enumerate(self, size):
        return torch.stack([sum(torch.eye(size)[list(pair)]) for pair in itertools.combinations(range(size), 2)])


def test_a_users_structure_gets_everything_else():
    structure, lengths = Subsets(), torch.tensor([5, 3])
    scores = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    marginals = structure.marginals(scores, lengths)
    for row, k in enumerate(lengths.tolist()):
        vertices = structure.enumerate(k).double()
        probabilities = (vertices @ scores[row, :k]).softmax(0)
        torch.testing.assert_close(marginals[row, :k], probabilities @ vertices)
        torch.testing.assert_close(
            structure.entropy(scores, lengths)[row], torch.distributions.Categorical(probabilities).entropy()
        )
    for name in ("marginals", "sparsemap", "entropy"):
        assert torch.autograd.gradcheck(lambda s, name=name: getattr(structure, name)(s, lengths), (scores,))


def test_no_graph_is_kept_under_no_grad():
    with torch.no_grad():
        assert not Subsets().marginals(torch.randn(2, 5, requires_grad=True)).requires_grad


@pytest.mark.parametrize("estimator", [*TREE_ESTIMATORS, "expected_loss"])
def test_every_estimator_works_on_a_users_structure(estimator):
    scores = torch.randn(3, 5, requires_grad=True)
    goal = torch.rand(3, 5)
    latent = get_estimator(estimator)(Subsets(), scores, None, lambda value: (value - goal).square().sum(1))
    ((latent.value - goal).square().sum(1) + latent.loss).sum().backward()
    assert scores.grad.abs().sum() > 0


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


def test_a_users_structure_in_inference_mode():
    scores = torch.randn(2, 5)
    expected = Subsets().marginals(scores)
    with torch.inference_mode():
        assert torch.equal(Subsets().marginals(scores), expected)
        assert Subsets().entropy(scores).isfinite().all()


def test_padding_leaves_no_mark_on_the_gradient_of_a_structure():
    z = torch.rand(1, 3, requires_grad=True)
    Categorical().score(z, torch.tensor([[1.0, 2.0, -torch.inf]]), torch.tensor([2])).sum().backward()
    assert z.grad.tolist() == [[1, 2, 0]]


def test_kl_between_scores_at_the_limit():
    scores = torch.full((1, 3), 1e100, dtype=torch.float64)
    assert Categorical().kl_divergence(scores, -scores) == 0


def test_a_users_structure_samples_and_finds_the_best():
    structure, lengths = Subsets(), torch.tensor([5, 3])
    scores = torch.randn(2, 5, dtype=torch.float64)
    samples = structure.sample(scores, lengths, 20_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(samples.mean(0), structure.marginals(scores, lengths), rtol=0, atol=0.02)
    best = structure.top_k(scores, lengths, 4)
    assert torch.equal(best.structures[:, 0], structure.argmax(scores, lengths))
    assert best.scores[1].isfinite().tolist() == [True, True, True, False]
    solution = structure.sparsemap_solution(scores, lengths)
    torch.testing.assert_close(solution.point, structure.sparsemap(scores, lengths))
    assert solution.converged.all()
