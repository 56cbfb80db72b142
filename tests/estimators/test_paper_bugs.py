"""Each bug of the paper's own code that could occur here, made impossible."""

from itertools import pairwise

import pytest
import torch
from transformers import PreTrainedModel

import hf_latent
from hf_latent import (
    Categorical,
    DependencyTree,
    HeadAveraging,
    LatentTreeForSequenceClassification,
    LatentTreeLayer,
    get_estimator,
)
from hf_latent.layers import AttentionPooling


def test_head_averaging_gives_each_word_its_head():
    """Theirs multiplied each word by the number of its own children; no head vector reached the decoder."""
    words, averaging = torch.randn(1, 3, 4), HeadAveraging(4)
    arcs = torch.tensor([[[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 0.5, 0.5, 0]]])
    output = averaging(words, arcs)
    torch.testing.assert_close(output[..., :4], words)
    expected = torch.stack([words[0, 1], averaging.root, (words[0, 0] + words[0, 1]) / 2])
    torch.testing.assert_close(output[0, :, 4:], expected)


def test_the_gradient_of_an_arc_tells_dependents_of_one_head_apart():
    """With theirs, the gradient was the same for every dependent of a head."""
    words, decoder = torch.randn(1, 3, 4), torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    arcs = DependencyTree().marginals(torch.randn(1, 3, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(decoder(HeadAveraging(4)(words, arcs)).sum(), arcs)
    assert gradient[0, :, 0].unique().numel() == 3


def test_attention_is_over_the_words():
    """Theirs was a softmax over an axis of size 1: all ones."""
    pooling, words = AttentionPooling(4), torch.randn(2, 5, 4)
    words[1, 3:] = 1e4  # padding
    pooled = pooling(words, torch.tensor([5, 3]))
    weights = pooling.query(words[1, :3])[:, 0].softmax(0)
    torch.testing.assert_close(pooled[1], weights @ words[1, :3])
    same = torch.ones(1, 5, 4)
    torch.testing.assert_close(pooling(same, torch.tensor([5])), same[:, 0])  # a mean, not a sum
    assert (pooling(words, torch.tensor([5, 0]))[1] == 0).all()


def test_trees_stay_within_their_sentence():
    """Theirs spanned the minibatch (NLI), and parsed and pooled padding."""
    layer = LatentTreeLayer(8, estimator="marginals")
    words, lengths = torch.randn(3, 6, 8), torch.tensor([6, 3, 1])
    arcs = layer(words, lengths).arcs
    changed = words.clone()
    changed[0] += 1
    changed[1, 3:] += 1
    torch.testing.assert_close(layer(changed, lengths).arcs[1:], arcs[1:])
    assert arcs[1, 3:].count_nonzero() == arcs[1, :, 4:].count_nonzero() == 0


def test_every_example_has_its_own_projection():
    """Theirs took example 0's projection for the whole batch."""
    scores, goal = torch.randn(4, 3, 4, requires_grad=True), torch.rand(4, 3, 4)
    tree = DependencyTree()
    estimator = get_estimator("spigot", step_size=1.0)
    latent = estimator(tree, scores, None, lambda value: (value - goal).square().sum((1, 2)))
    (gradient,) = torch.autograd.grad(latent.loss.sum(), scores)
    for row in range(4):
        vertex = tree.argmax(scores[row : row + 1])
        expected = vertex - tree.sparsemap(vertex - 2 * (vertex - goal[row]))
        torch.testing.assert_close(gradient[row : row + 1], expected, rtol=0, atol=1e-3)


def test_sparsemap_as_a_relaxation_trains_the_scorer():
    """Theirs was detached: the parser got no gradient."""
    layer = LatentTreeLayer(8, estimator="sparsemap")
    (layer(torch.randn(2, 4, 8)).arcs * torch.randn(2, 4, 5)).sum().backward()
    assert layer.scorer.bilinear.grad.abs().sum() > 0


def test_argmax_and_projection_speak_of_one_polytope(tree):
    """Theirs was multi-root in the argmax and single-root in the projection: z - Π(z) was not 0 without a gradient."""
    for vertex in tree.enumerate(4):
        torch.testing.assert_close(tree.sparsemap(vertex[None]), vertex[None], rtol=0, atol=1e-6)
    scores = torch.randn(8, 4, 5, requires_grad=True)
    latent = get_estimator("spigot")(tree, scores, None, lambda value: 0 * value.sum((1, 2)))
    (gradient,) = torch.autograd.grad(latent.loss.sum(), scores)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_exponentiated_gradient_uses_its_gradient():
    """Theirs (NLI) computed it and did not."""
    scores = torch.randn(2, 3, 4, requires_grad=True)
    weights = torch.randn(2, 3, 4)
    gradients = []
    for step_size in (0.5, 1.0):
        latent = get_estimator("spigot_eg", step_size=step_size)(
            DependencyTree(), scores, None, lambda v: (v * weights).sum((1, 2))
        )
        gradients += torch.autograd.grad(latent.loss.sum(), scores)
    assert gradients[0].abs().sum() > 0
    assert not torch.allclose(*gradients)


def test_softmax_has_its_full_jacobian():
    """Theirs kept the diagonal: p(1 - p)g for p(g - ⟨p, g⟩)."""
    scores, upstream = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5)
    p = Categorical().marginals(scores)
    (gradient,) = torch.autograd.grad((p * upstream).sum(), scores)
    torch.testing.assert_close(gradient, p * (upstream - (p * upstream).sum(1, keepdim=True)))


def test_train_and_eval_are_modules_own():
    """Theirs shadowed `nn.Module.train` by an attribute."""
    for cls in (LatentTreeForSequenceClassification, LatentTreeLayer):
        assert cls.train is torch.nn.Module.train or issubclass(cls, PreTrainedModel)
    layer = LatentTreeLayer(4)
    assert layer.eval().training is False
    assert layer.train().training is True


@pytest.mark.parametrize("name", ["ste_identity", "spigot", "spigot_ce", "spigot_eg"])
def test_inner_steps_and_forward_pass_share_the_decoder_input(name, tiny_bert, wordpiece):
    """Theirs rebuilt another decoder input for the inner steps, and drew dropout anew."""
    model = LatentTreeForSequenceClassification.from_encoder(
        tiny_bert, wordpiece, num_labels=2, estimator=name, dropout=0.5, estimator_options={"num_steps": 2}
    ).train()
    seen = []
    # What the dropout of the decoder drops, in each inner step and in the forward pass after them.
    model.decoder[2].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0] != 0) & (output == 0)))
    model(**wordpiece(["a good film", "not bad"], padding=True, return_tensors="pt"), labels=torch.tensor([0, 1]))
    assert len(seen) == 3
    assert seen[0].any()
    active = [mask.flatten() for mask in seen]
    agree = [(one == other).float().mean() for one, other in pairwise(active)]
    assert min(agree) > 0.9  # they differ only where a unit is active in one pass and not in the other


def test_importing_the_package_chooses_no_device():
    """Theirs had a module-level `device`."""
    assert not any(isinstance(value, torch.device) for value in vars(hf_latent).values())
