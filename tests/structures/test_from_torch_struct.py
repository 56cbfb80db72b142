"""Constituency trees of torch-struct as a structure of ours: right, under every estimator, and without its slips."""

import pytest
import torch
from conftest import TREE_ESTIMATORS
from torch_struct import DependencyCRF, LinearChainCRF, TreeCRF

from hf_latent import get_estimator
from hf_latent.structures import from_torch_struct
from hf_latent.structures.torch_struct_adapter import spans_within
from hf_latent.testing import check_structure


@pytest.mark.parametrize(("labels", "sizes"), [(1, (0, 1, 2, 3, 4, 5)), (2, (0, 1, 2, 3))])
def test_it_keeps_the_contract(labels, sizes):
    check_structure(from_torch_struct(TreeCRF, labels=labels), sizes)


@pytest.mark.parametrize("labels", [1, 3])
def test_the_trees_are_counted_by_catalan_numbers(labels):
    trees = from_torch_struct(TreeCRF, labels=labels)
    for size, count in ((0, 1), (1, 1), (2, 1), (3, 2), (4, 5)):
        own = trees.enumerate(size)
        assert len(own) == len({tuple(one.flatten().tolist()) for one in own}) == count * labels ** max(2 * size - 1, 0)
        assert (own.flatten(1).sum(1) == max(2 * size - 1, 0)).all()
    assert trees.num_parts(torch.tensor([0, 1, 4])).tolist() == [0, 1, 7]
    with pytest.raises(ValueError, match="`size` must be such that there are at most 300000 trees, got 20"):
        trees.enumerate(20)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_forbidden_spans_lengths_and_precision(dtype):
    """By enumeration, rows of 4, 3, 1 and 0 words together; what lies beyond a row is anything."""
    trees, lengths = from_torch_struct(TreeCRF, labels=2), torch.tensor([4, 3, 1, 0])
    scores = torch.randn(4, 4, 4, 2).to(dtype)
    scores[~trees.positions(scores, lengths)] = torch.nan
    scores[0, 0, 2], scores[1, 0, 1, 0], scores[0, 1, 2] = -torch.inf, -torch.inf, -1e4
    original = scores.clone()
    value, marginals, best = (operation(scores, lengths) for operation in (trees.log_partition, trees.marginals, trees.argmax))
    assert not scores.requires_grad
    torch.testing.assert_close(scores, original, equal_nan=True)
    for row, vertices, values in trees.enumerate_rows(scores.double(), lengths):
        tolerance = 1e-10 if dtype is torch.float64 else 1e-3
        torch.testing.assert_close(value[row].double(), values.logsumexp(0), rtol=tolerance, atol=tolerance)
        expected = torch.einsum("z,z...->...", values.softmax(0), vertices.double())
        torch.testing.assert_close(marginals[row].double(), expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(best[row].double(), vertices[values.argmax()].double())
    scores[0, 0, 3] = -torch.inf
    for operation in (trees.log_partition, trees.marginals, trees.argmax):
        with pytest.raises(ValueError, match=r"scores\[0\]"):
            operation(scores, lengths)


def test_slips_of_torch_struct_that_are_not_ours():
    scores = torch.randn(2, 3, 3, 1)
    with torch.inference_mode():
        with pytest.raises(RuntimeError):
            _ = TreeCRF(scores.clone()).argmax
        assert from_torch_struct(TreeCRF).argmax(torch.randn(2, 3, 3, 1)).sum() == 10
    marked = scores.clone()
    _ = TreeCRF(marked).partition
    assert marked.requires_grad
    forbidden = scores.clone()
    forbidden[:, 0, 1] = -torch.inf
    assert TreeCRF(forbidden.clone().requires_grad_()).marginals.isnan().any()
    assert from_torch_struct(TreeCRF).marginals(forbidden).isfinite().all()


def test_gradients():
    trees, lengths = from_torch_struct(TreeCRF, labels=2), torch.tensor([3, 2, 0])
    scores = torch.randn(3, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda own: trees.log_partition(own, lengths), scores)
    assert torch.autograd.gradcheck(lambda own: trees.marginals(own, lengths), scores)


@pytest.mark.parametrize("name", [*TREE_ESTIMATORS, "expected_loss"])
def test_every_estimator_works_on_it(name):
    trees, lengths = from_torch_struct(TreeCRF, labels=2), torch.tensor([4, 1, 0])
    scores = torch.randn(3, 4, 4, 2, requires_grad=True)
    weights = torch.randn(4, 4, 2)

    def losses(spans):
        return ((spans * weights).flatten(1).sum(1) - 1) ** 2

    latent = get_estimator(name)(trees, scores, lengths, losses)
    (losses(latent.value).mean() + latent.loss.mean()).backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[0].any()
    assert not scores.grad[2].any()


def test_other_classes():
    class Own(TreeCRF):
        pass

    for name, ours in ((LinearChainCRF, "LinearChain"), (DependencyCRF, "DependencyTree")):
        with pytest.raises(ValueError, match=f"is `hf_latent.{ours}` here"):
            from_torch_struct(name)
    with pytest.raises(
        ValueError, match="must be TreeCRF, or come with `positions`, `enumerate_all` and `event_dims`, got Own"
    ):
        from_torch_struct(Own)
    known = from_torch_struct(TreeCRF, labels=2)
    check_structure(from_torch_struct(Own, positions=spans_within, enumerate_all=known.enumerate, event_dims=3), (1, 2, 3))
    with pytest.raises(ValueError, match=r"must have shape \(batch, n, n, 2\), for `labels=2`, got \(2, 3, 3, 1\)"):
        known.argmax(torch.randn(2, 3, 3, 1))
