"""A public call looks at the values of each of its scores once, and makes their mask once."""

from collections import Counter

import pytest
import torch

from hf_latent import Categorical, DependencyTree, Independent, LinearChain, Segmentation, Subset, SubsetChain
from hf_latent.inference import checks, operators
from structures.test_check_structure import Pair

STRUCTURES = {
    "categorical": (Categorical(), (3, 4), torch.tensor([4, 2, 0])),
    "tree": (DependencyTree(), (3, 4, 5), torch.tensor([4, 2, 0])),
    "non-projective tree": (DependencyTree(projective=False, single_root=True), (3, 4, 5), torch.tensor([4, 2, 0])),
    "two trees": (Independent(DependencyTree()), (2, 2, 4, 5), torch.tensor([[4, 2], [0, 1]])),
}
OPERATIONS = {
    "score": 1,
    "log_prob": 1,
    "entropy": 1,
    "cross_entropy": 2,  # of the other scores as well
    "kl_divergence": 2,
}


@pytest.mark.parametrize("forbidden", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("which", STRUCTURES)
def test_values_are_looked_at_once_and_masks_made_once(which, name, forbidden, monkeypatch):
    structure, shape, lengths = STRUCTURES[which]
    scores, other = torch.randn(2, *shape)
    if forbidden:
        scores.flatten(1)[0, 1] = other.flatten(1)[0, 1] = -torch.inf
    sample = structure.sample(scores, lengths)[0]
    counts: Counter[str] = Counter()

    def counting(what, function):
        return lambda *arguments, **options: (counts.update([what]), function(*arguments, **options))[1]

    inner = type(structure.structure if isinstance(structure, Independent) else structure)
    monkeypatch.setattr(inner, "positions", counting("masks", inner.positions))
    monkeypatch.setattr(checks, "checked_values", counting("values", checks.checked_values))
    arguments = {
        "score": (sample, scores),
        "log_prob": (sample, scores),
        "entropy": (scores,),
        "cross_entropy": (scores, other),
        "kl_divergence": (scores, other),
    }[name]
    getattr(structure, name)(*arguments, lengths)
    assert counts == {"values": OPERATIONS[name], "masks": OPERATIONS[name]}


def test_a_projection_onto_structures_of_ones_own_checks_once(monkeypatch):
    """Beside what its `argmax` checks itself, once in each call; though something is forbidden."""
    scores = 0.1 * torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    scores[0, 1] = -torch.inf
    counts: Counter[str] = Counter()
    checked_values, argmax = checks.checked_values, vars(Pair.argmax)["unguarded"]
    monkeypatch.setattr(checks, "checked_values", lambda *all: (counts.update(["values"]), checked_values(*all))[1])
    monkeypatch.setitem(vars(Pair.argmax), "unguarded", lambda *all: (counts.update(["argmax"]), argmax(*all))[1])
    Pair().sparsemap(scores)
    assert counts["argmax"] > 2
    assert counts["values"] == 1 + counts["argmax"]


@pytest.mark.parametrize(
    "structure", [DependencyTree(), LinearChain(3), Segmentation(3, 3), Subset(2), SubsetChain(2)], ids=str
)
def test_a_reference_is_given_checked_values_once(structure, monkeypatch):
    scores = torch.randn({DependencyTree: (2, 4, 5), Subset: (2, 4), SubsetChain: (2, 4, 2)}.get(type(structure), (2, 4, 3, 3)))
    counts: Counter[str] = Counter()
    checked_values = checks.checked_values
    monkeypatch.setattr(checks, "checked_values", lambda *all: (counts.update(["values"]), checked_values(*all))[1])
    with operators.reference_only():
        for name in ("argmax", "log_partition", "marginals", "sample", "sparsemap", "top_k"):
            counts.clear()
            getattr(structure, name)(scores)
            assert counts["values"] == 1, name
