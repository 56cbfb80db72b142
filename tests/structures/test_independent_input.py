"""Several choices as one structure: a layer over several sentences, and bad input. (For all else: tests/structures.)"""

import pickle

import pytest
import torch
from torch._utils import ExceptionWrapper

from hf_latent import Categorical, DependencyTree, Independent, LatentTreeLayer, get_estimator


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


@pytest.mark.parametrize("operation", ["argmax", "log_partition", "marginals", "sparsemap", "sample", "top_k", "entropy"])
def test_errors_count_the_choices_of_each_row(operation):
    """Once, `scores[2]` was named where `scores[1, 0]` was meant."""
    for structure, shape in ((Independent(DependencyTree()), (2, 2, 3, 4)), (Independent(Categorical()), (2, 2, 4))):
        scores = torch.zeros(shape)
        scores[1, 0] = -torch.inf
        with pytest.raises(ValueError, match=r"structure to choose in every row, but in scores\[1, 0\] each"):
            getattr(structure, operation)(scores)
        scores[1, 0] = torch.nan
        with pytest.raises(ValueError, match=r"finite .* but scores\[1, 0, .* is nan"):
            getattr(structure, operation)(scores)
        with pytest.raises(ValueError, match=r"between 0 and \d, the size of `scores`, but lengths\[1, 0\] is 9\."):
            getattr(structure, operation)(torch.zeros(shape), torch.tensor([[1, 1], [9, 1]]))


def test_an_error_with_a_place_goes_through_processes_and_replicas():
    message = r"`scores` must be finite .* scores\[0, 1, 0\] is inf"
    with pytest.raises(ValueError, match=message) as caught:
        Independent(Categorical()).argmax(torch.tensor([[[0.0], [torch.inf]]]))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(ValueError, match=f"(?s)in replica 0.*{message}"):
        ExceptionWrapper((caught.type, caught.value, caught.tb), where="in replica 0").reraise()
