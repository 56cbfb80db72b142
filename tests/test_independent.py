"""Several choices as one structure: against the general algorithms of `Structure` and against enumeration."""

import pytest
import torch
from conftest import TREE_ESTIMATORS

from hf_latent import Categorical, DependencyTree, Independent, LatentTreeLayer, Structure, get_estimator

CASES = [
    (Independent(DependencyTree()), (2, 3, 4)),
    (Independent(DependencyTree(False, True)), (2, 3, 4)),
    (Independent(Categorical()), (2, 5)),
]
LENGTHS = torch.tensor([[3, 2], [1, 3], [0, 2]])


@pytest.fixture(params=CASES, ids=["projective", "non-projective", "categorical"])
def case(request):
    structure, shape = request.param
    return structure, torch.randn(3, *shape, dtype=torch.float64)


def enumerated(structure, scores, lengths):
    return [(vertices.double(), values) for _, vertices, values in structure.enumerate_rows(scores, lengths)]


def test_there_are_all_combinations(case):
    structure, scores = case
    flat = enumerated(structure.structure, scores.flatten(0, 1), LENGTHS.flatten())
    rows = enumerated(structure, scores, LENGTHS)
    for row, (vertices, values) in enumerate(rows):
        assert len(vertices) == len(flat[2 * row][1]) * len(flat[2 * row + 1][1])
        assert len(torch.unique(vertices.flatten(1), dim=0)) == len(vertices)
        torch.testing.assert_close(
            values, structure.score(vertices, scores[row].expand_as(vertices), LENGTHS[row].expand(len(vertices), 2))
        )


def test_operations(case):
    structure, scores = case
    for row, (vertices, values) in enumerate(enumerated(structure, scores, LENGTHS)):
        chances = values.softmax(0)
        torch.testing.assert_close(structure.argmax(scores, LENGTHS)[row], vertices[values.argmax()])
        torch.testing.assert_close(structure.log_partition(scores, LENGTHS)[row], values.logsumexp(0))
        torch.testing.assert_close(structure.marginals(scores, LENGTHS)[row], torch.einsum("z,z...->...", chances, vertices))
        torch.testing.assert_close(
            structure.entropy(scores, LENGTHS)[row], -(chances * chances.log()).sum(), atol=1e-9, rtol=1e-9
        )
        best = structure.top_k(scores, LENGTHS, 4)
        count = min(4, len(values))
        torch.testing.assert_close(best.scores[row, :count], values.topk(count).values)
        assert best.scores[row, count:].isneginf().all()
        assert not best.structures[row, count:].any()
        torch.testing.assert_close(
            (best.structures[row, :count].double() * scores[row]).flatten(1).sum(1), best.scores[row, :count]
        )


def test_the_projection_is_that_of_the_whole(case):
    structure, scores = case
    whole = Structure.sparsemap(structure, scores, LENGTHS, tol=1e-12)
    torch.testing.assert_close(structure.sparsemap(scores, LENGTHS, tol=1e-12), whole, atol=1e-5, rtol=0)
    solution = structure.sparsemap_solution(scores, LENGTHS)
    assert solution.converged.all()
    torch.testing.assert_close(solution.marginals if hasattr(solution, "marginals") else solution[0], whole, atol=1e-4, rtol=0)
    start = structure.argmax(scores, LENGTHS)
    torch.testing.assert_close(structure.sparsemap(scores, LENGTHS, tol=1e-12, start=start), whole, atol=1e-5, rtol=0)


def test_samples(case):
    structure, scores = case
    samples = structure.sample(scores, LENGTHS, 4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples.double().mean(0), structure.marginals(scores, LENGTHS), atol=0.05, rtol=0)
    again = structure.sample(scores, LENGTHS, 4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(samples, again)


@pytest.mark.parametrize("estimator", [*TREE_ESTIMATORS, "expected_loss"])
def test_every_estimator_gives_one_loss_for_all_choices_of_an_example(estimator):
    """For a loss that is a sum over the choices, pulled-back estimators give each the gradient it would have alone."""
    structure, single = Independent(DependencyTree()), DependencyTree()
    scores, costs = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64)
    scores.requires_grad_()
    lengths = torch.tensor([[3, 2], [1, 3], [2, 2]])
    latent = get_estimator(estimator)(structure, scores, lengths, lambda z: (z * costs).flatten(1).sum(1).square() / 9)
    assert latent.value.shape == scores.shape
    assert latent.loss.shape == (3,)
    ((latent.value * costs).sum() + latent.loss.sum()).backward()
    assert scores.grad.isfinite().all()
    if estimator in ("ste_identity", "spigot", "spigot_ce", "spigot_eg"):
        together = get_estimator(estimator)(structure, scores, lengths, lambda z: (z * costs).flatten(1).sum(1))
        (gradient,) = torch.autograd.grad(together.loss.sum(), scores)
        alone = get_estimator(estimator)(
            single, scores.flatten(0, 1), lengths.flatten(), lambda z: (z * costs.flatten(0, 1)).flatten(1).sum(1)
        )
        (expected,) = torch.autograd.grad(alone.loss.sum(), scores)
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=0)


def test_layer_over_several_sentences():
    layer = LatentTreeLayer(8, estimator="spigot").eval()
    words, lengths = torch.randn(2, 3, 4, 8), torch.tensor([[4, 2, 0], [1, 4, 3]])
    both, alone = layer(words, lengths), layer(words.flatten(0, 1), lengths.flatten())
    assert both.arcs.shape == (2, 3, 4, 5)
    assert both.loss.shape == (2,)
    assert torch.equal(both.arcs.flatten(0, 1), alone.arcs)


@pytest.mark.parametrize(
    ("scores", "lengths", "message"),
    [
        (torch.zeros(2, 3, 4), None, r"must be a tensor \(batch, choices, \.\.\.\) with 4 dimensions"),
        (torch.zeros(2, 0, 3, 4), None, r"at least one choice"),
        (torch.zeros(2, 2, 3, 4), torch.tensor([3, 3]), r"`lengths` must have shape \(2, 2\)"),
        (torch.zeros(2, 2, 3, 4), torch.tensor([[3, 4], [0, 0]]), r"must lie between 0 and 3"),
        (torch.full((2, 2, 3, 4), torch.nan), None, r"must be finite"),
    ],
)
def test_bad_input(scores, lengths, message):
    with pytest.raises(ValueError, match=message):
        Independent(DependencyTree()).argmax(scores, lengths)
    with pytest.raises(TypeError, match="`structure` must be"):
        Independent(Independent(DependencyTree()))
    with pytest.raises(ValueError, match="enumerate_rows"):
        Independent(DependencyTree()).enumerate(3)


def test_extremes():
    structure = Independent(DependencyTree())
    assert structure.top_k(torch.zeros(0, 2, 3, 4), k=2).structures.shape == (0, 2, 2, 3, 4)
    with pytest.raises(ValueError, match=r"`start` must be structures, a tensor of shape \(2, 2, 3, 4\)"):
        structure.sparsemap(torch.zeros(2, 2, 3, 4), start=torch.zeros(2, 2, 3))
    # Once, all combinations were made before anybody counted them: 13 GB.
    with pytest.raises(ValueError, match="combinations, more than can be gone through"):
        get_estimator("expected_loss")(structure, torch.randn(1, 2, 7, 8), None, lambda z: z.flatten(1).sum(1))
