"""Words beside their segments: against a loop over segments, and as a part of a network."""

import pytest
import torch

from hf_latent import Segmentation, get_estimator
from hf_latent.layers import SegmentPooling, segment_labels

LENGTHS = torch.tensor([5, 3, 1, 0])


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Words, and marginals of segments of up to 3 words with 2 labels."""
    torch.manual_seed(0)
    scores = torch.randn(4, 5, 3, 2, dtype=torch.float64)
    return torch.randn(4, 5, 7, dtype=dtype), Segmentation(3, 2).marginals(scores, LENGTHS).to(dtype)


@pytest.mark.parametrize("mode", ["mean", "ends"])
def test_the_sum_over_segments(mode):
    words, z = problem()
    expected, labels = torch.zeros(4, 5, 14 if mode == "ends" else 7, dtype=torch.float64), torch.zeros(4, 5, 2).double()
    for b, length in enumerate(LENGTHS.tolist()):
        for first in range(length):
            for last in range(first, min(first + 3, length)):
                inside = words[b, first : last + 1]
                seen = inside.mean(0) if mode == "mean" else torch.cat([inside[0], inside[-1]])
                expected[b, first : last + 1] += z[b, first, last - first].sum() * seen
                labels[b, first : last + 1] += z[b, first, last - first]
    torch.testing.assert_close(SegmentPooling(mode)(words, z), expected)
    torch.testing.assert_close(segment_labels(z), labels)
    torch.testing.assert_close(segment_labels(z).sum(2), (torch.arange(5) < LENGTHS[:, None]).double())


@pytest.mark.parametrize("mode", ["mean", "ends"])
def test_gradients_and_linearity(mode):
    words, z = (part.requires_grad_() for part in problem())
    pooling = SegmentPooling(mode)
    assert torch.autograd.gradcheck(pooling, (words, z))
    torch.testing.assert_close(pooling(words, 2 * z + z**2), 2 * pooling(words, z) + pooling(words, z**2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_dtypes(dtype):
    """As exact as the dtype allows, also beside words that are large."""
    words, z = problem()
    words[:, 0] = 1000.0
    for mode in ("mean", "ends"):
        found = SegmentPooling(mode)(words.to(dtype), z.to(dtype))
        assert found.dtype == dtype
        exact = SegmentPooling(mode)(words.to(dtype).double(), z.to(dtype).double())
        torch.testing.assert_close(found.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)
    assert segment_labels(z.to(dtype)).dtype == dtype


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (2, 1)])
def test_of_nothing_and_of_less_than_a_segment(shape):
    words, z = torch.randn(*shape, 3), torch.rand(*shape, 4, 2)
    assert SegmentPooling()(words, z).shape == (*shape, 3)
    assert SegmentPooling("ends")(words, z).shape == (*shape, 6)
    assert segment_labels(z).shape == (*shape, 2)


@pytest.mark.parametrize("name", ["marginals", "ste_identity", "spigot", "score_function"])
def test_a_network_learns_through_it(name):
    words, _ = problem(torch.float32)
    scores, wanted = torch.randn(4, 5, 3, 2, requires_grad=True), torch.randn(5, 7)

    def task_loss(value: torch.Tensor) -> torch.Tensor:
        return (SegmentPooling()(words, value) * wanted).flatten(1).sum(1)

    latent = get_estimator(name)(Segmentation(3, 2), scores, LENGTHS, task_loss)
    (task_loss(latent.value) + latent.loss).sum().backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[:2].count_nonzero() > 0
    assert scores.grad[3].count_nonzero() == 0


def test_compiled():
    pooling = SegmentPooling("ends")
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (5, 9):
        words, z = torch.randn(2, n, 3), torch.rand(2, n, 4, 2)
        torch.testing.assert_close(compiled(words, z), pooling(words, z))


def test_bad_input():
    words, z = problem()
    with pytest.raises(ValueError, match="`mode` must be one of 'mean', 'ends', got 'max'"):
        SegmentPooling("max")
    with pytest.raises(ValueError, match=r"`words` must have shape \(batch, n, size\)"):
        SegmentPooling()(words[0], z)
    with pytest.raises(ValueError, match=r"`segmentation` must have shape \(4, 5, any, any\)"):
        SegmentPooling()(words, z[:, 1:])
    with pytest.raises(TypeError, match="`segmentation` must be floating point"):
        segment_labels(z.long())
