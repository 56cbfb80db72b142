"""Whatever comes in: kernels equal the reference and enumeration, and hostile calls end in a right result or a named error."""

import random
import warnings
from collections import Counter

import brute_force
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent import DependencyTree
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference.trees import TreeReference

KINDS = st.tuples(st.booleans(), st.booleans())
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@st.composite
def batches(draw, largest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with ties, of every scale and dtype, and mixed lengths."""
    n, batch = draw(st.integers(1, largest)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale, dtype = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 300.0])), draw(DTYPES)
    scores = torch.randn(batch, n, n + 1, generator=generator, dtype=torch.float64) * scale
    if draw(st.booleans()):
        scores = scores.round()
    return scores.to(dtype), torch.randint(0, n + 1, (batch,), generator=generator)


@settings(max_examples=60, deadline=None)
@given(batches(5), KINDS)
def test_kernels_equal_enumeration(batch, kind):
    scores, lengths = batch
    tree, exact = DependencyTree(*kind), scores.double()
    best, marginals, partition = (getattr(tree, name)(exact, lengths) for name in ("argmax", "marginals", "log_partition"))
    for row, n in enumerate(lengths.tolist()):
        structures, values = brute_force.tree_scores(exact[row, :n, : n + 1], *kind)
        probabilities = values.softmax(0)
        torch.testing.assert_close((best[row, :n, : n + 1] * exact[row, :n, : n + 1]).sum(), values.max())
        torch.testing.assert_close(partition[row], values.logsumexp(0))
        expected = torch.einsum("t,tij->ij", probabilities, structures)
        torch.testing.assert_close(marginals[row, :n, : n + 1], expected, rtol=1e-9, atol=1e-9)
        assert marginals[row].count_nonzero() == marginals[row, :n, : n + 1].count_nonzero()


@settings(max_examples=60, deadline=None)
@given(batches(24), KINDS)
def test_kernels_equal_the_reference(batch, kind):
    scores, lengths = batch
    tree, exact = DependencyTree(*kind), scores.double()
    direction = torch.randn_like(exact)
    best = tree.argmax(scores, lengths).double()
    torch.testing.assert_close(
        tree.score(best, exact, lengths), tree.score(TreeReference().argmax(tree, scores, lengths), exact, lengths)
    )
    leaf = exact.clone().requires_grad_()
    marginals = tree.marginals(leaf, lengths)
    torch.testing.assert_close(marginals, TreeReference().marginals(tree, exact, lengths), rtol=1e-8, atol=1e-9)
    (gradient,) = torch.autograd.grad(marginals, leaf, direction)
    expected = TreeReference().marginals_derivative(tree, exact, lengths, direction)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(tree.log_partition(exact, lengths), TreeReference().log_partition(tree, exact, lengths))


@settings(max_examples=40, deadline=None)
@given(batches(16), KINDS)
def test_sparsemap_is_optimal(batch, kind):
    """The gap is what no other vertex can exceed; the point is made of trees."""
    scores, lengths = batch
    tree, exact = DependencyTree(*kind), scores.double()
    solution = tree.sparsemap_solution(exact, lengths, tol=1e-7)
    assert solution.converged.all()
    rest = (exact - solution.point).masked_fill(~tree.mask(exact, lengths), 0.0)
    best = tree.argmax(rest, lengths)
    gap = (rest * (best - solution.point)).sum((1, 2))
    scale = exact.abs().amax((1, 2)).clamp(min=1)
    assert (gap <= 1.1e-7 + 1e-12 * scale * exact.shape[1]).all()
    torch.testing.assert_close(torch.einsum("bk,bkij->bij", solution.weights, solution.structures), solution.point)
    used = solution.weights > 0
    positions = torch.arange(exact.shape[1])
    heads = torch.where(positions < lengths[:, None, None], solution.structures.argmax(3), positions)
    assert is_tree(heads[used], *kind).all()
    torch.testing.assert_close(solution.weights.sum(1), (lengths > 0).double())


@pytest.mark.parametrize("n", [60, 120, 200])
def test_sparsemap_converges_on_long_sentences(tree, n):
    scores = torch.randn(2, n, n + 1)
    solution = tree.sparsemap_solution(scores, tol=1e-6)
    rest = (scores - solution.point).double()
    gap = (rest * (tree.argmax(rest) - solution.point)).sum((1, 2))
    assert solution.converged.all()
    assert (gap <= 1e-4).all()  # of the point in float32
    assert (solution.gap <= 1e-6 + 1e-10).all()


def test_a_start_changes_nothing_but_the_way(tree):
    scores, lengths = torch.randn(6, 8, 9, dtype=torch.float64), torch.tensor([8, 7, 5, 3, 1, 0])
    start = tree.sample(scores, lengths)[0]
    expected = tree.sparsemap(scores, lengths)
    torch.testing.assert_close(tree.sparsemap(scores, lengths, start=start), expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[0\] is none"):
        tree.sparsemap(scores, lengths, start=torch.zeros_like(scores).index_fill(2, torch.tensor(2), 1.0))
    with pytest.raises(ValueError, match="`start` must be structures, a tensor of shape"):
        tree.sparsemap(scores, lengths, start=start[:2])


def test_no_convergence_is_reported(tree):
    scores = torch.randn(3, 12, 13) * 0.01
    with pytest.warns(UserWarning, match="did not converge in 2 iterations"):
        solution = tree.sparsemap_solution(scores, max_iter=2)
    assert not solution.converged.any()
    assert (solution.gap > 0).all()
    assert solution.gap.isfinite().all()
    torch.testing.assert_close(solution.point.sum(2), torch.ones(3, 12))


def hostile_call(chance: random.Random) -> str:
    """One call that may be wrong in any way; how it ended."""
    n, batch = chance.choice([0, 1, 2, 3, 5, 9]), chance.choice([0, 1, 2, 9])
    tree = DependencyTree(chance.random() < 0.5, chance.random() < 0.5)
    shape = [batch, n, n + 1]
    if chance.random() < 0.1:
        shape = [chance.choice([0, 1, 3]) for _ in range(chance.choice([1, 2, 3, 4]))]
    dtype = chance.choice([torch.float32] * 4 + [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
    scores = torch.randn(shape) * chance.choice([0, 1, 100, 1e4])
    if scores.numel() and chance.random() < 0.2:
        scores.view(-1)[chance.randrange(scores.numel())] = chance.choice([torch.nan, torch.inf, -torch.inf])
    scores = scores.to(dtype)
    layout = chance.random()
    if layout < 0.1 and scores.dim() == 3:
        scores = scores.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout < 0.2 and scores.dim() == 3 and scores.shape[0]:
        scores = scores[:1].expand(scores.shape)
    elif layout < 0.3:
        scores = torch.cat([scores, scores], -1)[..., : scores.shape[-1]]
    lengths = None
    if chance.random() < 0.7:
        lengths = torch.tensor([chance.choice([-1, n + 1] if chance.random() < 0.05 else range(n + 1)) for _ in range(batch)])
        lengths = lengths.to(chance.choice([torch.int64] * 5 + [torch.int32, torch.float32]))
        if chance.random() < 0.05:
            lengths = lengths[:, None]
    operation = chance.choice(["argmax", "log_partition", "marginals", "sparsemap", "entropy", "sample", "top_k"])
    differentiate = operation in ("log_partition", "marginals", "sparsemap", "entropy") and chance.random() < 0.5
    if differentiate and scores.is_floating_point():
        scores = scores.detach().requires_grad_()
    try:
        result = getattr(tree, operation)(scores, lengths)
        if differentiate:
            result.float().sin().sum().backward()  # a gradient of moderate size, which float16 can hold
    except (TypeError, ValueError) as error:
        return "named error" if "`scores`" in str(error) or "`lengths`" in str(error) else f"an error without a name: {error}"
    result = result.structures if operation == "top_k" else result
    inside = tree.mask(scores, tree.check(scores, lengths)[1])
    assert result.isfinite().all(), "a result that is not finite"
    if result.dim() >= 3:
        assert (result.transpose(0, 1) if operation == "top_k" else result)[..., ~inside].count_nonzero() == 0
    if differentiate:
        assert scores.grad.isfinite().all(), "a gradient that is not finite"
        assert scores.grad[~inside].count_nonzero() == 0
    return "result"


def run_hostile_calls(count: int, seed: int) -> None:
    chance, ends = random.Random(seed), Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(count):
            ends[hostile_call(chance)] += 1
    assert set(ends) == {"result", "named error"}, ends
    assert min(ends.values()) > count / 20, ends


def test_hostile_calls():
    run_hostile_calls(4000, seed=1)


@pytest.mark.slow
def test_100000_hostile_calls():
    run_hostile_calls(100_000, seed=2)


def test_a_vertex_that_is_the_projection_needs_one_iteration(tree):
    scores = tree.argmax(torch.randn(2, 5, 6)) * 100
    solution = tree.sparsemap_solution(scores, max_iter=1)
    assert solution.converged.all()
    assert torch.equal(solution.point, scores / 100)
