"""Estimators under what training does around them: recomputed activations, no gradients wanted, several choices, threads."""

import threading
from dataclasses import fields

import pytest
import torch
from conftest import TREE_ESTIMATORS
from torch.utils.checkpoint import checkpoint

from hf_latent import Categorical, DependencyTree, HeadAveraging, Independent, LatentTreeLayer, get_estimator


class Network(torch.nn.Module):
    def __init__(self, estimator):
        super().__init__()
        self.tree, self.heads, self.output = LatentTreeLayer(8, estimator=estimator), HeadAveraging(8), torch.nn.Linear(16, 3)
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, words, lengths, labels):
        def losses(arcs):
            logits = self.output(self.dropout(self.heads(words, arcs)).mean(1))
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        tree = self.tree(words, lengths, losses)
        return (losses(tree.arcs) + tree.loss).mean()


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("estimator", TREE_ESTIMATORS)
def test_recomputed_activations_change_nothing(estimator, use_reentrant):
    """Neither the gradient nor what is carried from step to step."""
    plain, recomputing = Network(estimator), Network(estimator)
    recomputing.load_state_dict(plain.state_dict())
    for step in range(3):
        words = torch.randn(4, 5, 8, requires_grad=True)
        lengths, labels = torch.tensor([5, 3, 2, 4]), torch.tensor([0, 1, 2, 0])
        for network in (plain, recomputing):
            torch.manual_seed(step)
            network.zero_grad()
            if network is plain:
                loss = network(words, lengths, labels)
            else:
                loss = checkpoint(network, words, lengths, labels, use_reentrant=use_reentrant)
            loss.backward()
        for one, other in zip(plain.parameters(), recomputing.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)
        for one, other in zip(plain.buffers(), recomputing.buffers(), strict=True):
            assert one.isfinite()
            assert torch.equal(one, other)


def test_the_moving_average_goes_in_and_comes_out():
    """The next one holds this batch's finite losses; the one that came in stays as it was, and is the baseline."""
    estimator = get_estimator("score_function", decay=0.5)
    state, scores = estimator.initial_state(), torch.zeros(2, 3)
    expected = None
    for losses in ([1.0, 3.0], [5.0, 5.0], [torch.nan, 4.0], [torch.nan, torch.inf]):
        leaf, seen, before = scores.clone().requires_grad_(), torch.tensor(losses), state.clone()
        latent = estimator.resume(Categorical(), leaf, None, lambda value, seen=seen: seen, state)
        torch.testing.assert_close(state, before, rtol=0, atol=0, equal_nan=True)
        latent.loss[1].backward()
        if losses[1] < torch.inf:
            torch.testing.assert_close(leaf.grad[1], (losses[1] - (expected or 0.0)) * (latent.value[1] - 1 / 3))
            mean = seen[seen.isfinite()].mean().item()
            expected = mean if expected is None else 0.5 * expected + 0.5 * mean
        state = latent.state
        assert state == expected
    empty = estimator.resume(Categorical(), scores[:0], None, lambda value: value.sum(1), state)
    assert empty.state == expected


def test_an_estimator_stores_nothing():
    """A call without a state begins anew; equal options make equal estimators, whatever they were used for."""
    estimator = get_estimator("score_function")
    assert [field.name for field in fields(estimator)] == ["baseline", "num_samples", "decay"]
    scores = torch.zeros(2, 3)
    first, second = (estimator(Categorical(), scores, None, lambda value, loss=loss: loss + value[:, 0]) for loss in (0.0, 9.0))
    assert first.state <= 1
    assert second.state >= 9  # not a mean with the first
    assert estimator == get_estimator("score_function")
    assert hash(estimator) == hash(get_estimator("score_function"))
    for name in [*TREE_ESTIMATORS, "expected_loss"]:
        if name != "score_function":
            assert get_estimator(name).initial_state() is None
            assert (
                get_estimator(name)(DependencyTree(), torch.zeros(1, 2, 3), None, lambda z: z.flatten(1).sum(1)).state is None
            )


@pytest.mark.parametrize("scored", [True, False], ids=["trained", "frozen scorer"])
def test_a_compiled_layer_keeps_the_state(scored):
    network = Network("score_function").requires_grad_(True)
    network.tree.scorer.requires_grad_(scored)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    losses = []
    for _ in range(2):
        loss = compiled(torch.randn(2, 3, 8), torch.tensor([3, 2]), torch.tensor([0, 1]))
        loss.backward()
        losses.append(network.tree.estimator_state.item())
    assert losses[0] > 0
    assert losses[1] != losses[0]


def test_the_layer_keeps_the_state_once_the_gradient_has_arrived():
    network = Network("score_function")
    state = network.tree.estimator_state
    arguments = torch.randn(2, 3, 8), torch.tensor([3, 2]), torch.tensor([0, 1])
    loss = network(*arguments)
    assert state.isnan()
    loss.backward()
    torch.testing.assert_close(state, loss.detach())
    before = state.clone()
    with torch.no_grad():
        network(*arguments)
    network.eval()(*arguments).backward()
    assert torch.equal(state, before)
    network.train().tree.scorer.requires_grad_(False)  # no gradient will arrive
    network(*arguments)
    assert not torch.equal(state, before)
    assert network.tree.estimator_state is state


def test_an_estimator_that_layers_share_keeps_their_averages_apart():
    estimator = get_estimator("score_function")
    networks = [Network(estimator), Network(estimator)]

    def train(network, size):
        for _ in range(20):
            network(size * torch.randn(2, 3, 8), torch.tensor([3, 2]), torch.tensor([0, 1])).backward()

    threads = [
        threading.Thread(target=train, args=(network, size)) for network, size in zip(networks, (0.0, 100.0), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    small, large = (network.tree.estimator_state.item() for network in networks)
    assert small < 2 < 5 < large


@pytest.mark.parametrize("estimator", [*TREE_ESTIMATORS, "expected_loss"])
def test_training_where_no_gradients_are_wanted(estimator):
    scores, goal = torch.randn(2, 3, 4), torch.randn(2, 3, 4)

    def run():
        torch.manual_seed(0)
        return get_estimator(estimator)(DependencyTree(), scores, None, lambda z: (z - goal).square().flatten(1).sum(1))

    with torch.no_grad():
        latent = run()
    assert not latent.value.requires_grad
    assert torch.equal(latent.value, run().value)


@pytest.mark.parametrize("choices", [1, 2, 8])
@pytest.mark.parametrize("noise", ["gumbel", "sum_of_gamma"])
def test_noise_is_that_of_one_choice_however_many_there_are(noise, choices):
    scores, draws = torch.tensor([1.0, 0.0, -1.0, 0.5]), 40_000
    many = scores.expand(draws // choices, choices, 4).clone()
    value = get_estimator("perturb_and_map", noise=noise)(Independent(Categorical()), many, None, None).value
    shares = value.flatten(0, 1).mean(0)
    torch.testing.assert_close(shares, scores.softmax(0), rtol=0, atol=0.015)


def test_parts_are_counted_without_an_argmax(monkeypatch):
    lengths = torch.tensor([[3, 0], [1, 2]])
    assert torch.equal(Independent(DependencyTree()).num_parts(lengths), lengths)
    assert Categorical().num_parts(lengths).tolist() == [[1, 0], [1, 1]]
    calls = []
    argmax = DependencyTree.argmax
    monkeypatch.setattr(DependencyTree, "argmax", lambda *arguments: calls.append(1) or argmax(*arguments))
    get_estimator("imle")(DependencyTree(), torch.randn(2, 3, 4), None, lambda z: z.flatten(1).sum(1))
    assert len(calls) == 2  # as the README's table of costs says


def test_identity_with_projection_by_itself_beside_others_and_for_nearly_equal_scores():
    estimator, tree = get_estimator("identity_with_projection"), DependencyTree()

    def gradient(structure, scores, direction):
        leaf = scores.clone().requires_grad_()
        return torch.autograd.grad((estimator(structure, leaf).value * direction).sum(), leaf)[0]

    scores, direction = torch.randn(2, 1, 2, 6, 7).double()
    beside = scores.clone()
    beside[:, 1] *= 20
    alone = gradient(tree, scores[:, 0], direction[:, 0])
    for several in (scores, beside):
        torch.testing.assert_close(gradient(Independent(tree), several, direction)[:, 0], alone)
    mask = tree.mask(scores[:, 0], torch.tensor([6]))
    assert alone.masked_fill(~mask, 0.0).sum(2).abs().max() < 1e-9  # nothing along what changes no argmax
    for scale in (0.0, 1e-6, 1e-3, 1e-1, 1.0):
        small = gradient(
            Categorical(), scale * torch.tensor([[1.0, -1.0, 2.0, -2.0]]).double(), torch.ones(1, 4).double().cumsum(1)
        )
        assert small.abs().max() <= 10 * 4
