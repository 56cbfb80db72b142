"""Whatever a user hands over ends in a right result or in an error that names the argument, the value and the way out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_latent
from hf_latent import Categorical, DependencyTree, LatentTreeLayer
from hf_latent.structures.dependency_tree import conversions
from hf_latent.trees import Tree, attachment_score

OPERATIONS = ["argmax", "marginals", "log_partition", "sparsemap", "entropy"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(tree, operation, value):
    scores = torch.randn(2, 3, 4)
    scores[1, 2, 0] = value
    with pytest.raises(ValueError, match=rf"`scores` must be finite.*scores\[1, 2, 0\] is {value}.*lower the learning rate"):
        getattr(tree, operation)(scores)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([3, 4]), ValueError, r"between 0 and 3.*lengths\[1\] is 4"),
        (torch.tensor([-1, 3]), ValueError, r"between 0 and 3.*lengths\[0\] is -1"),
        (torch.tensor([1.0, 2.0]), TypeError, "integer dtype, got a float32 tensor"),
        (torch.tensor([True, False]), TypeError, "integer dtype, got a bool tensor.*mask.sum"),
        (torch.tensor([1, 2, 3]), ValueError, r"shape \(2,\)"),
        ("ab", TypeError, r"integer tensor of shape \(2,\), got 'ab'"),
    ],
)
def test_lengths_that_do_not_fit(tree, lengths, error, message):
    with pytest.raises(error, match=message):
        tree.marginals(torch.randn(2, 3, 4), lengths)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (torch.randn(2, 3, 3), ValueError, r"shape \(batch, n, n \+ 1\).*got a float32 tensor of shape \(2, 3, 3\)"),
        (torch.randn(3, 4), ValueError, r"shape \(batch, n, n \+ 1\), got a float32 tensor of shape \(3, 4\)"),
        (torch.ones(2, 3, 4, dtype=torch.long), TypeError, r"floating point, got a int64 tensor.*scores.float\(\)"),
        ([[[0.0, 1.0]]], TypeError, "must be a torch.Tensor"),
    ],
)
def test_scores_of_the_wrong_kind(tree, scores, error, message):
    with pytest.raises(error, match=message):
        tree.argmax(scores)


def test_sentences_of_length_zero_and_one(tree):
    scores = torch.randn(3, 1, 2)
    lengths = torch.tensor([0, 1, 0])
    expected = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    for name in ("argmax", "marginals", "sparsemap"):
        assert torch.equal(getattr(tree, name)(scores, lengths), expected)
    torch.testing.assert_close(tree.log_partition(scores, lengths), torch.tensor([0.0, scores[1, 0, 0].item(), 0.0]))
    assert torch.equal(tree.entropy(scores, lengths), torch.zeros(3))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 1), (0, 0, 1)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_at_all(tree, shape, operation):
    value = getattr(tree, operation)(torch.randn(shape))
    assert value.shape == (shape[:1] if operation in ("log_partition", "entropy") else shape)


def test_non_contiguous_and_expanded_scores(tree):
    scores = torch.randn(4, 5, 3).permute(2, 1, 0).mT  # (3, 4, 5), strided
    for name in ("argmax", "marginals", "sparsemap"):
        assert torch.equal(getattr(tree, name)(scores), getattr(tree, name)(scores.contiguous()))
    expanded = torch.randn(1, 4, 5).expand(3, 4, 5)
    assert torch.equal(tree.argmax(expanded), tree.argmax(expanded.clone()))


def test_categorical_errors():
    with pytest.raises(ValueError, match=r"scores\[0, 1\] is nan"):
        Categorical().marginals(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(ValueError, match=r"lengths\[0\] is 3"):
        Categorical().marginals(torch.randn(1, 2), torch.tensor([3]))
    with pytest.raises(ValueError, match="2 dimensions"):
        Categorical().argmax(torch.randn(3))


def test_stopping_rules_of_sparsemap(tree):
    with pytest.raises(ValueError, match=r"`tol` must be a positive number, got -1"):
        tree.sparsemap(torch.randn(1, 2, 3), tol=-1)
    with pytest.raises(ValueError, match=r"`max_iter` must be an integer of at least 1, got 0"):
        tree.sparsemap(torch.randn(1, 2, 3), max_iter=0)


def test_enumeration_has_a_limit(tree):
    with pytest.raises(ValueError, match=r"between 0 and 7, got 8"):
        tree.enumerate(8)


def test_log_prob_wants_the_shape_of_the_scores(tree):
    with pytest.raises(ValueError, match=r"`z` must have the shape of `scores`, \(1, 2, 3\), or.* got \(1, 2, 2\)"):
        tree.log_prob(torch.zeros(1, 2, 2), torch.randn(1, 2, 3))


def test_layer_errors():
    with pytest.raises(ValueError, match="Unknown estimator 'gumbel'"):
        LatentTreeLayer(8, estimator="gumbel")
    with pytest.raises(ValueError, match=r"Unknown `arc_scorer` 'linear'\. The known ones are: biaffine, mlp"):
        LatentTreeLayer(8, arc_scorer="linear")
    layer = LatentTreeLayer(8, estimator="marginals")
    with pytest.raises(ValueError, match=r"lengths\[0\] is 4"):
        layer(torch.randn(1, 3, 8), torch.tensor([4]))


def test_lengths_may_be_a_list(tree):
    scores = torch.randn(2, 3, 4)
    for function in (hf_latent.spigot, hf_latent.ste_identity):
        assert torch.equal(function(tree, scores, [3, 1]), tree.argmax(scores, torch.tensor([3, 1])))
    assert hf_latent.LatentTreeLayer(8)(torch.randn(2, 3, 8), [3, 1]).arcs[1, 1:].sum() == 0


def test_options_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="`tol` must be a positive, finite number, got 0"):
        hf_latent.get_estimator("sparsemap", tol=0)
    with pytest.raises(TypeError, match="`structure` must be a DependencyTree, got 'projective'"):
        LatentTreeLayer(8, structure="projective")
    with pytest.raises(TypeError, match=r"`estimator` must be a name .* got None"):
        LatentTreeLayer(8, estimator=None)


def test_heads_that_do_not_fit():
    with pytest.raises(ValueError, match="`heads` must lie between 0"):
        conversions.arcs_from_heads(torch.tensor([[3, 0]]))
    with pytest.raises(ValueError, match="integer tensor of shape"):
        conversions.arcs_from_heads(torch.tensor([[0.0, 1.0]]))
    with pytest.raises(ValueError, match="give each of the 2 words a head"):
        Tree(("a", "b"), (0, 5))
    with pytest.raises(ValueError, match="must form a tree"):
        Tree(("a", "b"), (2, 1))
    with pytest.raises(ValueError, match="no words"):
        attachment_score([], [])


@given(
    batch=st.integers(0, 3),
    n=st.integers(0, 5),
    columns=st.integers(-1, 1),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]),
    special=st.sampled_from([None, float("nan"), float("inf"), -1e30, 1e30]),
    lengths=st.none() | st.lists(st.integers(-1, 6), min_size=0, max_size=3),
    tree=st.builds(DependencyTree, st.booleans(), st.booleans()),
    operation=st.sampled_from(OPERATIONS),
)
@settings(max_examples=400, deadline=None)
def test_hostile_input(batch, n, columns, dtype, special, lengths, tree, operation):
    """A right result or a named error: no crash, and no NaN out of finite input."""
    scores = torch.randn(batch, n, max(n + 1 + columns, 0)).to(dtype)
    if special is not None and scores.numel() and dtype.is_floating_point:
        scores.view(-1)[0] = special
    lengths = None if lengths is None else torch.tensor(lengths, dtype=torch.long)
    try:
        value = getattr(tree, operation)(scores, lengths)
    except (ValueError, TypeError) as error:
        named = str(error).startswith(("`scores`", "`lengths`"))
    else:
        named = bool(value.isfinite().all())
    assert named


@pytest.mark.parametrize("operation", ["log_partition", "marginals", "sparsemap", "argmax"])
def test_forward_mode_derivatives_are_refused(operation):
    """torch's operators in Python have none, and would answer 0."""
    scores = torch.randn(1, 3, 4)
    with pytest.raises(NotImplementedError, match=r"no forward-mode derivatives .* use `backward\(\)`"):
        torch.func.jvp(getattr(DependencyTree(), operation), (scores,), (torch.ones_like(scores),))


def test_a_start_that_is_no_structure():
    tree, scores = hf_latent.DependencyTree(False), torch.randn(2, 2, 3)
    for start in (torch.zeros(2, 2, 3), torch.full((2, 2, 3), torch.nan), torch.full((2, 2, 3), 1 / 3)):
        with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[0\] is none"):
            tree.sparsemap(scores, start=start)
    categorical = hf_latent.Categorical()
    for operation in (categorical.sparsemap, categorical.sparsemap_solution):
        with pytest.raises(ValueError, match=r"`start` must be structures that there are, but start\[1\] is none"):
            operation(torch.randn(2, 3), start=torch.tensor([[0.0, 1, 0], [1, 1, 1]]))
        with pytest.raises(ValueError, match="`start` must be structures, a tensor of shape"):
            operation(torch.randn(2, 3), start="argmax")
    start = torch.tensor([[0.0, 1, 0], [1, 0, 0]], requires_grad=True)
    assert not categorical.sparsemap_solution(torch.randn(2, 3), start=start).point.requires_grad


def test_no_categories_and_no_batch():
    empty = hf_latent.Categorical().top_k(torch.zeros(2, 0), k=2)
    assert empty.scores.tolist() == [[0, -torch.inf]] * 2
    assert DependencyTree().argmax(torch.zeros(0, 3, 4), []).shape == (0, 3, 4)


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_score_of_whatever_size_is_noticed(all_of_them):
    for value in (1e101, 1e300, -1e101, -1e300):
        scores = torch.full((1, 3, 4), value if all_of_them else 0.0, dtype=torch.float64)
        scores[0, 1, 0] = value
        for projective in (True, False):
            tree = hf_latent.DependencyTree(projective)
            for operation in (tree.argmax, tree.marginals, tree.log_partition, tree.sparsemap, tree.top_k, tree.check):
                if value > 0 or all_of_them:
                    with pytest.raises(ValueError, match=r"`scores` must be finite.*or -inf for what is forbidden"):
                        operation(scores)
                elif operation != tree.check:  # beside 0, it is as good as -inf
                    found, expected = operation(scores), operation(scores.masked_fill(scores == value, -torch.inf))
                    torch.testing.assert_close(found, expected, rtol=0, atol=0)
