"""Scores of any size, sentences of any length, every floating-point dtype: finite, and as exact as the dtype allows."""

import os
import subprocess
import sys

import pytest
import torch

from hf_latent import DependencyTree
from hf_latent.structures.dependency_tree.enumeration import is_tree
from hf_latent.structures.dependency_tree.reference.trees import TreeReference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CLOSE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-4, torch.float64: 1e-9}


def assert_sound(tree: DependencyTree, scores: torch.Tensor, lengths: torch.Tensor) -> None:
    n, words = scores.shape[1], torch.arange(scores.shape[1]) < lengths[:, None]
    leaf = scores.clone().requires_grad_()
    marginals = tree.marginals(leaf, lengths)
    (gradient,) = torch.autograd.grad((marginals * torch.randn_like(marginals)).sum(), leaf)
    assert marginals.dtype == gradient.dtype == scores.dtype
    assert gradient.isfinite().all()
    assert (marginals >= 0).all()
    assert (marginals <= 1).all()
    torch.testing.assert_close(marginals.double().sum(2), words.double(), rtol=0, atol=CLOSE[scores.dtype])
    best = tree.argmax(scores, lengths)
    positions = torch.arange(n)
    assert is_tree(torch.where(words, best.argmax(2), positions), tree.projective, tree.single_root).all()
    partition, log_prob = tree.log_partition(scores, lengths), tree.log_prob(best, scores, lengths)
    assert partition.isfinite().all()
    assert (log_prob <= 0).all()
    assert log_prob.isfinite().all()
    assert (tree.entropy(scores, lengths) >= 0).all()
    assert tree.entropy(scores, lengths).isfinite().all()
    sample = tree.sample(scores, lengths)[0]
    assert torch.equal(sample.sum(2) > 0, words)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 30.0, 1e4])
def test_scores_of_any_size(tree, scale, dtype):
    lengths = torch.tensor([9, 1, 0, 5, 8, 9, 2, 3, 7, 4])
    assert_sound(tree, (torch.randn(10, 9, 10) * scale).clamp(-1e4, 1e4).to(dtype), lengths)


@pytest.mark.parametrize("n", [1, 2, 17, 64, 130])
def test_sentences_of_any_length(tree, n):
    assert_sound(tree, torch.randn(3, n, n + 1), torch.tensor([n, n // 2, 1]))


def test_a_sentence_of_512_words(tree):
    assert_sound(tree, torch.randn(1, 512, 513), torch.tensor([512]))


@pytest.mark.slow
def test_a_sentence_of_512_words_with_extreme_scores(tree):
    assert_sound(tree, (torch.randn(1, 512, 513) * 1e4).clamp(-1e4, 1e4), torch.tensor([512]))


def test_a_difference_of_10000_within_a_sentence(tree):
    scores = torch.zeros(1, 6, 7)
    scores[0, 0], scores[0, 1, ::2], scores[0, 3, 4:] = 1e4, -1e4, -5e3
    assert_sound(tree, scores, torch.tensor([6]))


@pytest.mark.parametrize("scale", [40.0, 300.0, 3000.0])
def test_sums_beyond_the_kernels_range_agree_with_the_reference(tree, scale):
    """Some of these rows are left to the reference, some are not; either way, the answer is the same."""
    scores, lengths = torch.randn(24, 14, 15, dtype=torch.float64) * scale, torch.arange(24) % 15
    direction = torch.randn_like(scores)
    leaf = scores.clone().requires_grad_()
    marginals = tree.marginals(leaf, lengths)
    (gradient,) = torch.autograd.grad(marginals, leaf, direction)
    torch.testing.assert_close(marginals.detach(), TreeReference().marginals(tree, scores, lengths), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(tree.log_partition(scores, lengths), TreeReference().log_partition(tree, scores, lengths))
    expected = TreeReference().marginals_derivative(tree, scores, lengths, direction)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


def test_a_word_that_may_hang_from_root_alone():
    """With a single root, it is the root, whatever the others would prefer: also where it is forced by a huge score."""
    for projective in (True, False):
        tree = DependencyTree(projective, single_root=True)
        for word in range(4):
            scores = torch.randn(1, 4, 5, dtype=torch.float64)
            scores[0, word, 1:] = -1e30
            marginals = tree.marginals(scores)
            root = torch.zeros(4, dtype=torch.float64)
            root[word] = 1
            torch.testing.assert_close(marginals[0, :, 0], root)
            torch.testing.assert_close(marginals.sum(2), torch.ones(1, 4, dtype=torch.float64))
            assert tree.argmax(scores)[0, word, 0] == 1
            # What the others do is a distribution over the trees below that root.
            vertices = tree.enumerate(4).double()
            vertices = vertices[vertices[:, word, 0] == 1]
            free = scores.clone()
            free[0, word] = 0
            expected = (vertices * (vertices * free).sum((1, 2)).softmax(0)[:, None, None]).sum(0)
            torch.testing.assert_close(marginals[0], expected)


MEMORY = """
import resource, torch
from hf_latent import DependencyTree
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def work(n):
    for projective in (True, False):
        for single_root in (True, False):
            tree = DependencyTree(projective, single_root)
            for operation in ("marginals", "log_partition", "entropy", "sparsemap"):
                scores = torch.randn(8, n, n + 1, requires_grad=True)
                getattr(tree, operation)(scores).sum().backward()
            tree.argmax(scores), tree.sample(scores)
work(3)  # what is compiled and loaded is not what inference takes
before = peak()
work(200)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_memory_of_long_sentences():
    """Forward and backward of 8 sentences of 200 words stay within 200 MB."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, env=os.environ, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 200
