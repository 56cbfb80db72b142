"""What a score of -inf forbids, or one very low beside the rest, is never there: in any operation, structure or estimator."""

from contextlib import nullcontext

import brute_force
import pytest
import torch
from conftest import TREE_ESTIMATORS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_latent import Categorical, DependencyTree, Independent, Structure, get_estimator
from hf_latent.inference.dispatch import reference_only

N, BATCH = 4, 9
LOW = {
    "-inf": -torch.inf,
    "finfo.min": torch.finfo(torch.float64).min,
    "float32's": torch.finfo(torch.float32).min,
    "-1e18": -1e18,
}


@pytest.fixture(params=["kernels", "reference"])
def implementation(request):
    with reference_only() if request.param == "reference" else nullcontext():
        yield


def masked_problem(tree: DependencyTree, share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Scores of sentences of N words, what is forbidden, and the trees that are left, of which each sentence has some."""
    generator = torch.Generator().manual_seed(seed)
    every = brute_force.trees(N, tree.projective, tree.single_root)
    scores, forbidden, left = [], [], []
    while len(scores) < BATCH:
        mask = torch.rand(N, N + 1, generator=generator) < share
        trees = every[~((every > 0) & mask).flatten(1).any(1)]
        if len(trees):
            scores.append(torch.randn(N, N + 1, generator=generator, dtype=torch.float64) * 2)
            forbidden.append(mask)
            left.append(trees)
    return torch.stack(scores), torch.stack(forbidden), left


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_operations_on_trees_by_enumeration(tree, implementation, low, share):
    scores, forbidden, left = masked_problem(tree, share)
    leaf = scores.clone().requires_grad_()
    given = leaf.masked_fill(forbidden, LOW[low]) if low != "-inf" else leaf + torch.where(forbidden, -torch.inf, 0.0)
    marginals, partition = tree.marginals(given), tree.log_partition(given)
    best, projection = tree.argmax(given), tree.sparsemap(given, tol=1e-12)
    samples, entropy, top = tree.sample(given, None, 20), tree.entropy(given), tree.top_k(given, None, 30)
    for point in (marginals, best, projection, samples.transpose(0, 1), top.structures):
        assert (point.transpose(0, 1) if point.dim() == 4 else point)[..., forbidden].count_nonzero() == 0
    direction = torch.randn(N, N + 1, dtype=torch.float64)
    total = (marginals * direction).sum() + partition.sum() + entropy.sum() + (projection * direction).sum()
    (gradient,) = torch.autograd.grad(total - (projection * direction).sum(), leaf, retain_graph=True)
    (of_projection,) = torch.autograd.grad((projection * direction).sum(), leaf)
    assert gradient[forbidden].count_nonzero() == of_projection[forbidden].count_nonzero() == 0
    for row, trees in enumerate(left):
        own = scores[row].clone().requires_grad_()
        values = (trees * own).sum((1, 2))
        log_probs = values.log_softmax(0)
        mean = (log_probs.exp()[:, None, None] * trees).sum(0)
        own_entropy = -(log_probs.exp() * log_probs).sum()
        torch.testing.assert_close(partition[row], values.logsumexp(0))
        torch.testing.assert_close(marginals[row], mean, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close((best[row] * own).sum(), values.max())
        torch.testing.assert_close(entropy[row], own_entropy, rtol=1e-7, atol=1e-8)
        expected = values.sort(descending=True).values
        torch.testing.assert_close(top.scores[row, : len(trees)], expected[:30])
        assert top.scores[row, len(trees) :].isneginf().all()
        (exact,) = torch.autograd.grad((mean * direction).sum() + values.logsumexp(0) + own_entropy, own)
        torch.testing.assert_close(gradient[row], exact, rtol=1e-6, atol=1e-8)
        if share > 0.5 or row < 2:
            torch.testing.assert_close(
                projection[row], brute_force.project(scores[row].masked_fill(forbidden[row], 0.0), trees), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("operation", ["argmax", "marginals", "log_partition", "sparsemap", "sample", "top_k", "entropy"])
def test_a_row_without_a_structure_is_named(tree, implementation, operation):
    for low in (-torch.inf, torch.finfo(torch.float32).min):
        scores = torch.randn(3, 3, 4)
        scores[1, :, 0] = low  # nothing hangs from ROOT
        with pytest.raises(ValueError, match=r"`scores` must leave a structure to choose in every row, but in scores\[1\]"):
            getattr(tree, operation)(scores)
        assert getattr(tree, operation)(scores[[0, 2]]) is not None
    for structure, shape in ((Categorical(), (3, 4)), (tree, (3, 2, 3))):
        scores = torch.zeros(shape)
        scores[2] = -torch.inf
        with pytest.raises(ValueError, match=r"in every row, but in scores\[2\]"):
            getattr(structure, operation)(scores)


def test_two_words_that_hang_from_root_alone_are_too_many_for_a_single_root(implementation):
    scores = torch.randn(2, 4, 5, dtype=torch.float64)
    scores[1, 1, 1:] = scores[1, 3, 1:] = -torch.inf
    for projective in (True, False):
        DependencyTree(projective).argmax(scores)
        tree = DependencyTree(projective, single_root=True)
        for operation in (tree.argmax, tree.marginals, tree.log_partition, tree.sparsemap, tree.sample, tree.top_k):
            with pytest.raises(ValueError, match=r"scores\[1\] each one has a part that is forbidden"):
                operation(scores)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_dtype(tree, dtype):
    scores, forbidden, _ = masked_problem(tree, 0.3)
    low = scores.to(dtype).masked_fill(forbidden, -torch.inf)
    for name in ("argmax", "marginals", "sparsemap"):
        point = getattr(tree, name)(low)
        assert point.dtype == dtype
        assert point[forbidden].count_nonzero() == 0
        torch.testing.assert_close(point.float().sum(2), torch.ones(BATCH, N), rtol=0, atol=2e-2)


def test_a_finite_score_is_a_preference_where_there_is_nothing_better():
    """All of a row lie as low: then none is forbidden, since a constant changes nothing."""
    for value in (-1e18, -1e38):
        for structure, shape in ((DependencyTree(), (1, 3, 4)), (Categorical(), (1, 4))):
            scores = torch.full(shape, value)
            torch.testing.assert_close(structure.marginals(scores), structure.marginals(torch.zeros(shape)))
    far = torch.tensor([[0.0, -1e9, -1e11]], dtype=torch.float64)
    assert Categorical().top_k(far, k=3).scores.tolist() == [[0.0, -1e9, -1e11]]


def test_what_lies_beyond_the_lengths_forbids_nothing(tree):
    scores, lengths = torch.randn(3, 4, 5, dtype=torch.float64), torch.tensor([2, 4, 0])
    spoiled = scores.clone()
    spoiled[0, 2:], spoiled[0, :, 3:], spoiled[2] = 1e300, torch.nan, -torch.inf
    spoiled[:, range(4), range(1, 5)] = torch.inf
    for name in ("argmax", "marginals", "sparsemap", "log_partition", "entropy"):
        torch.testing.assert_close(getattr(tree, name)(spoiled, lengths), getattr(tree, name)(scores, lengths))


def test_divergences_and_probabilities():
    tree = DependencyTree()
    scores, forbidden, left = masked_problem(tree, 0.3)
    free, masked = scores.clone().requires_grad_(), scores.masked_fill(forbidden, -torch.inf)
    assert tree.kl_divergence(free, masked).isinf().all()  # q forbids what p does not
    assert tree.cross_entropy(free, masked).isinf().all()
    own = [(trees * scores[row]).sum((1, 2)).log_softmax(0) for row, trees in enumerate(left)]
    every = brute_force.trees(N, True, False)
    expected = [
        (log_p.exp() * (log_p - (trees * scores[row]).sum((1, 2)) + (every * scores[row]).sum((1, 2)).logsumexp(0))).sum()
        for row, (log_p, trees) in enumerate(zip(own, left, strict=True))
    ]
    divergence = tree.kl_divergence(masked, free)
    torch.testing.assert_close(divergence, torch.stack(expected))
    (gradient,) = torch.autograd.grad(divergence.sum(), free)
    assert gradient.isfinite().all()
    best = tree.argmax(scores)
    uses = (best.bool() & forbidden).flatten(1).any(1)
    assert uses.any()
    assert torch.equal(tree.log_prob(best, masked).isneginf(), uses)


def test_sparsemap_looks_at_allowed_scores_alone():
    """The rounding that it allows for is that of the scores in its trees, not of others."""
    for tree in (DependencyTree(), DependencyTree(False, True)):
        scores, forbidden, _ = masked_problem(tree, 0.2)
        expected = tree.sparsemap_solution(scores.masked_fill(forbidden, -torch.inf), tol=1e-9)
        assert expected.converged.all()
        assert (expected.gap < 2e-9).all()
        for low in (-1e6, -1e9, -1e11, -1e13, -1e15, -1e20, -1e100):
            found = tree.sparsemap_solution(scores.masked_fill(forbidden, low), tol=1e-9)
            torch.testing.assert_close(found.point, expected.point, rtol=0, atol=1e-4)
            assert found.converged.all()
            assert (found.gap < 2e-9).all()
            assert torch.equal((found.weights > 0).sum(1), (expected.weights > 0).sum(1))


def test_starts_that_are_forbidden_are_named(implementation):
    tree, scores = DependencyTree(), torch.zeros(2, 2, 3)
    scores[1, 0, 0] = -torch.inf
    start = torch.zeros(2, 2, 3)
    start[:, :, 0] = 1
    with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[1\] is none"):
        tree.sparsemap(scores, start=start)
    with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[0\] is none"):
        Categorical().sparsemap(torch.tensor([[-torch.inf, 0.0]]), start=torch.tensor([[1.0, 0.0]]))


# --- Estimators: structures x masks x padding x batch.

STRUCTURES = {
    "categorical": (Categorical(), lambda n: (n,)),
    "projective": (DependencyTree(), lambda n: (n, n + 1)),
    "non-projective, single root": (DependencyTree(False, True), lambda n: (n, n + 1)),
    "two trees": (Independent(DependencyTree()), lambda n: (2, n, n + 1)),
    "three categories": (Independent(Categorical()), lambda n: (3, n)),
}
RANDOM = ("imle", "perturb_and_map", "perturbed_marginals", "reinmax", "score_function")
OPTIONS = [
    *[(name, {}) for name in TREE_ESTIMATORS],
    ("expected_loss", {}),
    ("reinmax", {}),
    ("score_function", {"baseline": "self_critical"}),
    ("perturb_and_map", {"noise": "sum_of_gamma"}),
    ("marginals", {"temperature": 2.0}),
    *[
        (name, {"num_steps": steps, "start": start, "step_size": 0.5})
        for name in ("ste_identity", "spigot", "spigot_ce")
        for steps in (2, 3)
        for start in ("argmax", "marginals", "zero")
    ],
    ("spigot_eg", {"num_steps": 3}),
]


def feasible(structure: Structure, scores: torch.Tensor, lengths: torch.Tensor) -> bool:
    try:
        structure.argmax(scores, lengths)
    except ValueError:
        return False
    return True


def estimated(name, options, structure, scores, lengths, goals, forbidden, low):
    """The value, the gradient of the scores, and all that the decoder saw; the same random numbers each time."""
    torch.manual_seed(3)
    seen = []

    def task_loss(value):
        seen.append(value.detach())
        return ((value - goals).square() * (1 + goals.abs())).flatten(1).sum(1)

    leaf = scores.clone().requires_grad_()
    given = leaf if low is None else leaf.masked_fill(forbidden, low)
    latent = get_estimator(name, **options)(structure, given, lengths, task_loss)
    (gradient,) = torch.autograd.grad((task_loss(latent.value) + latent.loss).sum(), leaf)
    return latent.value.detach(), gradient, seen


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_no_decoder_sees_what_cannot_be_and_padding_leaves_no_mark(name, options, data):
    kind = "categorical" if name == "reinmax" else data.draw(st.sampled_from(list(STRUCTURES)))
    structure, shape = STRUCTURES[kind]
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    n = data.draw(st.integers(1, 2 if name == "expected_loss" else 4))
    longest, batch = n + data.draw(st.integers(0, 2)), data.draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000)))
    shares = torch.tensor(data.draw(st.sampled_from([0.0, 0.3])))
    scores = torch.randn(batch, *shape(longest), generator=generator, dtype=dtype)
    goals = torch.randn(batch, *shape(longest), generator=generator, dtype=dtype)
    forbidden = torch.rand(scores.shape, generator=generator) < shares
    choices = scores.shape[1:2] if isinstance(structure, Independent) else ()
    lengths = torch.randint(0, longest + 1, (batch, *choices), generator=generator)
    lengths[0] = n
    masked = scores.masked_fill(forbidden, -torch.inf)
    assume(feasible(structure, masked, lengths))
    can_be = structure.mask(masked, lengths)

    results = {}
    for low in (-torch.inf, torch.finfo(dtype).min):
        value, gradient, seen = estimated(name, options, structure, scores, lengths, goals, forbidden, low)
        results[low] = value, gradient
        for point in (value, gradient, *seen):
            assert point[~can_be].count_nonzero() == 0
            assert point.isfinite().all()
    for one, other in zip(*results.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    if name in RANDOM:
        return
    # The first row alone, without padding.
    own = tuple(slice(size) for size in shape(n))
    alone = [part[:1][(slice(None), *own)] for part in (scores, goals, forbidden)]
    value, gradient, _ = estimated(name, options, structure, alone[0], lengths[:1], alone[1], alone[2], -torch.inf)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(results[-torch.inf][0][0][own], value[0], **tolerance)
    torch.testing.assert_close(results[-torch.inf][1][0][own], gradient[0], **tolerance)


@pytest.mark.parametrize("name", ["ste_identity", "spigot"])
def test_functions_without_a_task_loss(tree, name):
    scores, forbidden, _ = masked_problem(tree, 0.3)
    goal = torch.randn_like(scores)
    gradients = []
    for low in (-torch.inf, torch.finfo(torch.float64).min):
        leaf = scores.clone().requires_grad_()
        value = get_estimator(name)(tree, leaf.masked_fill(forbidden, low)).value
        (gradient,) = torch.autograd.grad((value * goal).sum(), leaf)
        assert value[forbidden].count_nonzero() == gradient[forbidden].count_nonzero() == 0
        assert gradient.count_nonzero() > 0
        gradients.append(gradient)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", [*TREE_ESTIMATORS, "expected_loss"])
@pytest.mark.filterwarnings("ignore:The gradient of `task_loss` is not finite")
def test_a_loss_that_is_not_finite_spoils_no_other(name, value):
    """Nor does it spoil what is carried over to the next batch."""
    tree = DependencyTree()
    estimator, scores, goal = get_estimator(name), torch.randn(4, 3, 4), torch.randn(4, 3, 4)

    def gradients(factor: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        leaf = scores.clone().requires_grad_()

        def task_loss(z):
            return (z - goal).square().flatten(1).sum(1) * factor

        latent = estimator(tree, leaf, None, task_loss)
        return torch.autograd.grad((task_loss(latent.value) + latent.loss).sum(), leaf)[0]

    spoiled = gradients(torch.tensor([1.0, value, 1.0, 1.0]))
    assert spoiled[[0, 2, 3]].isfinite().all()
    assert spoiled[[0, 2, 3]].abs().sum() > 0
    assert gradients(torch.ones(4)).isfinite().all()
