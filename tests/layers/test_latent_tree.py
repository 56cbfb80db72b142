"""What `LatentTreeLayer` adds to a scorer."""

import pytest
import torch

from hf_latent import LatentTreeLayer


def test_distance_takes_from_scores():
    torch.manual_seed(0)
    layer = LatentTreeLayer(4, arc_size=5, distance_penalty=1.5).double().eval()
    words = torch.randn(2, 5, 4, dtype=torch.double)
    scores, own = layer(words).scores, layer.scorer(words)
    for dependent in range(5):
        assert torch.equal(scores[:, dependent, 0], own[:, dependent, 0])  # ROOT
        for head in range(5):
            if head != dependent:
                penalty = 1.5 * torch.tensor(float(abs(head - dependent)), dtype=torch.double).log()
                torch.testing.assert_close(scores[:, dependent, head + 1], own[:, dependent, head + 1] - penalty)
    pairs = layer(words.view(1, 2, 5, 4)).scores
    torch.testing.assert_close(pairs.view_as(scores), scores)
    assert torch.equal(LatentTreeLayer(4, layer.scorer).eval()(words).scores, own)


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_penalties_that_are_none(penalty):
    with pytest.raises(ValueError, match="`distance_penalty` must be a finite number of at least 0"):
        LatentTreeLayer(4, distance_penalty=penalty)
