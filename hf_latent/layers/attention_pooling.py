"""From the words of a sentence to one vector."""

import torch
from torch import Tensor, nn


class AttentionPooling(nn.Module):
    """Σ_i softmax_i(qᵀ h_i) h_i over the words of each sentence, with a learned query q.

    `words (batch, n, hidden_size)`, `lengths (batch,)` -> `(batch, hidden_size)`; 0 for a sentence without words.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        padding = torch.arange(words.shape[1], device=words.device) >= lengths[:, None]
        logits = self.query(words)[:, :, 0].masked_fill(padding, torch.finfo(words.dtype).min)
        weights = logits.softmax(1).masked_fill(padding, 0.0)
        return (weights[:, None] @ words)[:, 0]
