"""Drawn trees follow their distribution (against enumeration, for each kind) and repeat with their seed."""

import time

import brute_force
import pytest
import torch
from scipy.stats import chisquare

from hf_latent import DependencyTree
from hf_latent.inference import random
from hf_latent.structures.dependency_tree.conversions import arcs_from_heads
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference.trees import TreeReference


def assert_follows(samples: torch.Tensor, scores: torch.Tensor, tree: DependencyTree) -> None:
    """Chi-squared at a level that a right sampler fails once in 100,000 runs; the seed is fixed, so never or always."""
    structures, values = brute_force.tree_scores(scores, tree.projective, tree.single_root)
    same = samples.double().flatten(1) @ structures.flatten(1).T == structures.flatten(1).sum(1)
    assert (same.sum(1) == 1).all(), "something was drawn that is no tree of this kind"
    if len(structures) == 1:
        return
    counts, expected = same.sum(0).double(), values.softmax(0) * len(samples)
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    assert chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-5


def test_the_reference_sampler_follows_the_distribution(tree):
    scores, lengths = torch.randn(1, 3, 4).expand(1, 3, 4), torch.tensor([3])
    seeds = random.draw_seeds((1, 4000), torch.Generator().manual_seed(1), torch.device("cpu"))
    heads = TreeReference().sample(tree, scores.expand(4000, 3, 4), lengths.expand(4000), seeds)[0]
    assert_follows(arcs_from_heads(heads), scores[0], tree)


@pytest.mark.parametrize("sampler", ["kernels", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_samples_of_peaked_scores_follow_the_distribution(tree, sampler, seed):
    """Arcs that lead to each other nearly always, ROOT seldom chosen: words hang from what was put back, and are moved."""
    scores = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(seed)) * 3
    scores[0, 0, 2] = scores[0, 1, 1] = scores[0, 3, 5] = scores[0, 4, 4] = 12.0
    scores[0, :, 0] -= 6.0
    seeds = random.draw_seeds((4000, 1), torch.Generator().manual_seed(seed), torch.device("cpu"))
    kind = tree.projective, tree.single_root
    if sampler == "reference":
        samples = arcs_from_heads(TreeReference().sample(DependencyTree(*kind), scores, torch.tensor([5]), seeds)[:, 0])
    else:
        samples = torch.ops.hf_latent.tree_sample(scores, None, seeds, *kind)[:, 0]
    assert_follows(samples, scores[0], tree)


def test_two_words_that_prefer_each_other_by_far_are_drawn_rightly():
    """Random walks (Wilson 1996) would take e^40 steps."""
    scores = torch.zeros(1, 3, 4)
    scores[0, 0, 2] = scores[0, 1, 1] = 40.0
    tree = DependencyTree(projective=False)
    samples = tree.sample(scores, None, 3000, torch.Generator().manual_seed(1))
    assert_follows(samples[:, 0], scores[0], tree)


@pytest.mark.parametrize("single_root", [False, True])
def test_peaked_scores_of_a_long_sentence_are_drawn_in_seconds(single_root):
    tree = DependencyTree(projective=False, single_root=single_root)
    scores = torch.randn(2, 200, 201) * 300
    start = time.perf_counter()
    samples = tree.sample(scores, torch.tensor([200, 190]), 3)
    assert time.perf_counter() - start < 10
    heads = samples.argmax(3).flatten(0, 1)
    assert is_tree(heads, False, single_root, torch.tensor([200, 190]).repeat(3)).all()
    best = tree.score(tree.argmax(scores, torch.tensor([200, 190])), scores, torch.tensor([200, 190]))
    assert (best - tree.score(samples[0], scores, torch.tensor([200, 190]))).max() < 50


@pytest.mark.parametrize("scale", [1e3, 1e4])
def test_samples_of_extreme_scores_are_trees(tree, scale):
    scores = torch.randn(8, 12, 13) * scale
    samples = tree.sample(scores, None, 3)
    heads = samples.argmax(3).flatten(0, 1)
    assert is_tree(heads, tree.projective, tree.single_root).all()
    # Whatever is worse than the best tree by much has no chance at all.
    assert (tree.score(tree.argmax(scores), scores) - tree.score(samples[0], scores)).max() < 50


def test_a_seeded_generator_repeats_whatever_the_number_of_threads(tree):
    scores, before, drawn = torch.randn(64, 25, 26), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            drawn.append(tree.sample(scores, None, 2, torch.Generator().manual_seed(7)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], tree.sample(scores, None, 2, torch.Generator().manual_seed(8)))


def test_a_row_of_a_batch_draws_what_its_seed_says_whatever_its_neighbours():
    scores, seeds = torch.randn(20, 8, 9), torch.arange(20)[None]
    tree = (True, False)
    whole = torch.ops.hf_latent.tree_sample(scores, None, seeds, *tree)
    half = torch.ops.hf_latent.tree_sample(scores[10:], None, seeds[:, 10:], *tree)
    assert torch.equal(whole[:, 10:], half)


def test_both_random_number_generators_are_the_same():
    """SplitMix64's published first outputs for seed 0, as fractions of 2^64."""
    first = torch.tensor([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], dtype=torch.float64) / 2.0**64
    torch.testing.assert_close(random.uniforms(torch.tensor(0), 3), first, rtol=0, atol=1e-15)
    numbers = random.uniforms(torch.arange(10_000), 2)
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert abs(numbers.mean().item() - 0.5) < 0.01


def test_rare_trees_are_as_rare_as_they_should_be():
    """Two words that lead back to each other nearly always."""
    chance = 3.5e-3
    far = torch.tensor((1 - chance) / chance).log().item()
    scores = torch.tensor([[[0.0, 0.0, far], [1.0, far + 0.8, 0.0]]])
    tree, draws = DependencyTree(projective=False), 400_000
    samples = tree.sample(scores.expand(draws // 4, 2, 3), None, 4, torch.Generator().manual_seed(1)).flatten(0, 1)
    both = samples[:, :, 0].sum(1) == 2
    expected = tree.log_prob(torch.tensor([[[1.0, 0, 0], [1, 0, 0]]]), scores).exp().item()
    assert abs(both.double().mean() - expected) < 5 * (expected / draws) ** 0.5


def test_what_is_drawn_is_a_tree_also_where_scores_have_no_digits_left(tree):
    scores = torch.randint(-1, 3, (400, 4, 5), generator=torch.Generator().manual_seed(1)).double() * 1e16
    heads = tree.sample(scores, None, 5).argmax(3).flatten(0, 1)
    assert is_tree(heads, tree.projective, tree.single_root).all()
