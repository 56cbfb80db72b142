"""What a declaration makes: operators that torch finds nothing wrong with, on devices without kernels too."""

import pytest
import torch

from hf_latent import DependencyTree, LinearChain, Segmentation, Subset, SubsetChain
from hf_latent.inference.operators import by_way_of_the_cpu

DECLARED = {
    "trees": (DependencyTree(), (4, 5, 6)),
    "non-projective trees": (DependencyTree(projective=False), (4, 5, 6)),
    "trees with a single root": (DependencyTree(single_root=True), (4, 5, 6)),
    "non-projective trees with a single root": (DependencyTree(projective=False, single_root=True), (4, 5, 6)),
    "chains": (LinearChain(3), (4, 4, 3, 3)),
    "segmentations": (Segmentation(3, 2), (4, 5, 3, 2)),
    "subsets": (Subset(1, 3), (4, 5)),
    "subsets with neighbours": (SubsetChain(1, 3), (4, 5, 2)),
}


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 3, 0, 1])], ids=["whole", "mixed"])
@pytest.mark.parametrize("which", DECLARED)
def test_opcheck(which, lengths):
    """All that is declared."""
    structure, shape = DECLARED[which]
    operations, options = structure.operations, structure.operations.options(structure)
    scores = torch.randn(shape)
    leaf, seeds = scores.clone().requires_grad_(), torch.randint(99, (2, 4))
    support = operations.sparsemap_operator(scores, lengths, None, 1e-6, 100, *options)[1:4]
    best = operations.argmax_operator(scores, lengths, *options)
    arguments_of = {
        "argmax": (scores, lengths),
        "log_partition": (leaf, lengths),
        "marginals": (leaf, lengths),
        "marginals_vjp": (scores, lengths, scores.exp()),
        "sample": (scores, lengths, seeds),
        "top_k": (scores, lengths, 3),
        "sparsemap": (leaf, lengths, None, 1e-6, 100),
        "sparsemap_vjp": (scores, lengths, *support),
        "project_from": (scores, best, lengths),
        "project_from_marginals": (scores, scores, lengths),
    }
    assert {name.removesuffix("_operator") for name in vars(operations) if name.endswith("_operator")} == arguments_of.keys()
    for name, arguments in arguments_of.items():
        results = torch.library.opcheck(getattr(operations, f"{name}_operator"), (*arguments, *options))
        assert set(results.values()) == {"SUCCESS"}, (name, results)


def test_every_declared_structure_is_tried():
    names = {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "hf_latent::" in name}
    prefixes = {structure.operations.name for structure, _ in DECLARED.values()}
    assert {name.split("_")[0] for name in names} == prefixes


def test_numbers_of_another_device_come_to_the_cpu_and_the_results_go_back(monkeypatch):
    """Here with a stand-in for the way there, as there may be no other device."""
    moved = []
    to_cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (moved.append(tensor), to_cpu(tensor))[1])
    scores, lengths = torch.randn(2, 3), torch.tensor([3, 2])
    operator = by_way_of_the_cpu(lambda scores, lengths, factor, nothing: (scores * factor, lengths))
    doubled, same = operator(scores, lengths, 2.0, None)
    assert [tensor is own for tensor, own in zip(moved, (scores, lengths), strict=True)] == [True, True]
    assert torch.equal(doubled, 2 * scores)
    assert torch.equal(same, lengths)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("which", DECLARED)
def test_a_gpu_gives_the_same(which):
    structure, shape = DECLARED[which]
    scores = torch.randn(shape)
    for name in ("argmax", "log_partition", "marginals", "sparsemap", "entropy"):
        found = getattr(structure, name)(scores.cuda())
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), getattr(structure, name)(scores))
