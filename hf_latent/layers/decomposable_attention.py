"""Two sentences compared word by word (Parikh et al. 2016)."""

import torch
from torch import Tensor, nn


class DecomposableAttention(nn.Module):
    """Attend, compare, aggregate: each word beside the words of the other sentence that it is aligned with.

    `words (batch, 2, n, input_size)`, `lengths (batch, 2)` -> `(batch, 2 · hidden_size)`: the sum over the words of either
    sentence. e_ij = F(a_i)·F(b_j); each word is compared, by G, with the average of the other sentence's words under the
    softmax of e. Time and memory O(n²). A sentence without words adds 0.
    """

    def __init__(self, input_size: int, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attend = _feed_forward(input_size, hidden_size, dropout)
        self.compare = _feed_forward(2 * input_size, hidden_size, dropout)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        padding = torch.arange(words.shape[2], device=words.device) >= lengths[:, :, None]
        projected = self.attend(words)
        alignment = projected[:, 0] @ projected[:, 1].mT
        lowest = torch.finfo(alignment.dtype).min
        # The weights of each word over those of the other sentence; all are 0 where that has no words.
        to_second = alignment.masked_fill(padding[:, 1, None, :], lowest).softmax(2).masked_fill(padding[:, 1, None, :], 0.0)
        to_first = alignment.mT.masked_fill(padding[:, 0, None, :], lowest).softmax(2).masked_fill(padding[:, 0, None, :], 0.0)
        aligned = torch.stack([to_second @ words[:, 1], to_first @ words[:, 0]], dim=1)
        compared = self.compare(torch.cat([words, aligned], dim=3)).masked_fill(padding[..., None], 0.0)
        return compared.sum(2).flatten(1)


def _feed_forward(input_size: int, hidden_size: int, dropout: float) -> nn.Sequential:
    layers = [nn.Dropout(dropout), nn.Linear(input_size, hidden_size), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden_size, hidden_size), nn.ReLU())
