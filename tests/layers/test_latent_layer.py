"""A choice from any structure as a module, and what its entropy is paid."""

import pytest
import torch

from hf_latent import Categorical, DependencyTree, Independent, LatentLayer, LatentTreeLayer, get_estimator, list_estimators
from hf_latent.layers.latent_layer import entropy_per_part

TREES = DependencyTree(projective=True, single_root=True)


@pytest.mark.parametrize("name", list_estimators())
def test_it_does_what_its_estimator_does(name):
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([0, 1, 2])

    def loss_of(choice):
        return (choice - torch.nn.functional.one_hot(target, 4)).square().sum(1)

    gradients = []
    for call in (LatentLayer(Categorical(), name).train(), get_estimator(name)):
        torch.manual_seed(1)
        latent = call(scores, None, loss_of) if isinstance(call, LatentLayer) else call(Categorical(), scores, None, loss_of)
        gradients.append(torch.autograd.grad((loss_of(latent.value) + latent.loss).sum(), scores)[0])
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("structure", [TREES, DependencyTree(False, False)])
def test_the_bonus_is_the_gradient_of_the_enumerated_entropy(structure):
    layer = LatentLayer(structure, "ste_marginals").train()
    layer.entropy_bonus = 0.7
    scores = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    lengths = torch.tensor([4, 2])
    latent = layer(scores, lengths)
    assert torch.equal(latent.loss, torch.zeros(2))  # the loss that is reported stays the task's
    (gradient,) = torch.autograd.grad(latent.loss.sum(), scores)
    expected = torch.zeros(())
    for row, length in enumerate(lengths.tolist()):
        own = scores[row, :length, : length + 1]
        log_probs = (structure.enumerate(length).double() * own).flatten(1).sum(1).log_softmax(0)
        expected = expected + 0.7 * (log_probs.exp() * log_probs).sum() / length
    (by_enumeration,) = torch.autograd.grad(expected, scores)
    torch.testing.assert_close(gradient, by_enumeration, rtol=1e-6, atol=1e-9)
    layer.eval()
    assert torch.equal(layer(scores, lengths).loss, torch.zeros(2, dtype=torch.float64))


def test_entropy_for_each_part():
    assert entropy_per_part(Categorical(), torch.zeros(1, 8), None).item() == pytest.approx(torch.tensor(8.0).log().item())
    two = entropy_per_part(Independent(TREES), torch.zeros(1, 2, 3, 4), torch.tensor([[3, 2]]))
    counts = [len(TREES.enumerate(size)) for size in (3, 2)]
    assert two.item() == pytest.approx(sum(torch.tensor(count * 1.0).log().item() for count in counts) / 5)
    assert entropy_per_part(TREES, torch.zeros(1, 2, 3), torch.tensor([0])).item() == 0


def test_a_tree_layer_is_paid_for_pairs_too():
    layer = LatentTreeLayer(6, estimator="spigot_ce").train()
    layer.entropy_bonus = 1.0
    words = torch.randn(2, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    tree = layer(words, torch.tensor([[4, 2], [0, 3]]), lambda arcs: arcs.flatten(1).sum(1) * 0)
    (gradient,) = torch.autograd.grad(tree.loss.sum(), layer.scorer.bilinear)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_what_it_needs():
    with pytest.raises(TypeError, match="`structure` must be a Structure"):
        LatentLayer("trees")
    with pytest.raises(TypeError, match="`estimator` must be a name"):
        LatentLayer(Categorical(), 3)
    with pytest.raises(ValueError, match="Unknown estimator 'gumbel'"):
        LatentLayer(Categorical(), "gumbel")
    with pytest.raises(ValueError, match="biaffine, mlp, relative, counter"):
        LatentTreeLayer(4, arc_scorer="bilinear")
