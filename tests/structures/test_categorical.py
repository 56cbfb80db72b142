import entmax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_latent import Categorical
from structures.conformance import StructureConformance


class CategoricalConformance(StructureConformance):
    structure = Categorical()
    lengths = [4, 3, 2, 1, 0, 4]

    def event(self, longest):
        return (longest,)

    def is_structure(self, z, length):
        return z.sum() == (length > 0)

    def count(self, length):
        return max(length, 1)


class TestCategorical(CategoricalConformance):
    pass


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_projections_and_their_gradients_are_those_of_entmax(data):
    """Ties, and all sizes of support."""
    seed, categories = data.draw(st.integers(0, 2**31)), data.draw(st.integers(1, 9))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    scale, rounded = data.draw(st.sampled_from([0.0, 0.1, 1.0, 30.0])), data.draw(st.booleans())
    scores = scale * torch.randn(5, categories, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    scores = (scores.round() if rounded else scores).requires_grad_()
    direction = torch.randn(5, categories, generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)
    ours, theirs = Categorical().sparsemap(scores), entmax.sparsemax(scores, dim=1)
    torch.testing.assert_close(ours, theirs)
    assert (ours >= 0).all()
    gradients = [torch.autograd.grad((point * direction).sum(), scores)[0] for point in (ours, theirs)]
    alike = ((ours > 0) == (theirs > 0)).all(1)  # rounding decides where a score lies on the threshold
    torch.testing.assert_close(gradients[0][alike], gradients[1][alike])


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 3, 1, 0])])
def test_gradients_of_projections(lengths):
    scores = torch.randn(4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: Categorical().sparsemap(leaf, lengths), scores)
    forbidden = torch.zeros(4, 5, dtype=torch.bool)
    forbidden[0, 2] = True
    assert torch.autograd.gradcheck(
        lambda leaf: Categorical().sparsemap(leaf.masked_fill(forbidden, -torch.inf), lengths), scores
    )
