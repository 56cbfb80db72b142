"""Scores of all stretches of words that may be spans."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class SpanScorer(nn.Module):
    """w · ReLU(A h_i + B h_j + C · mean(h_i … h_j) + e[words] + b) for each label, of words i to j.

    `words (batch, n, hidden_size)` -> `(batch, n, longest, labels)`, by first word, number of words (less 1) and label, as
    `SegmentScores` takes them. What ends beyond the last column has scores as well, which nobody looks at.

    In time and room O(n · longest · size).

    Args:
        hidden_size: of the words.
        longest: how many words a span has at most.
        labels: how many there are.
        size: of the hidden layer.
        dropout: in the hidden layer.
    """

    def __init__(self, hidden_size: int, longest: int, labels: int, size: int = 100, dropout: float = 0.0) -> None:
        super().__init__()
        self.longest, self.size = longest, size
        self.parts = nn.Linear(hidden_size, 3 * size)
        self.lengths = nn.Parameter(torch.empty(longest, size))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, labels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.parts.reset_parameters()
        self.output.reset_parameters()
        nn.init.zeros_(self.lengths)

    def forward(self, words: Tensor) -> Tensor:
        first, last, inside = self.parts(words).split(self.size, dim=-1)
        n, scores = words.shape[1], []
        total = torch.zeros_like(inside)
        for size in range(1, self.longest + 1):
            ahead = min(size - 1, n)
            total = total + _ahead(inside, ahead)
            hidden = first + _ahead(last, ahead) + total / size + self.lengths[size - 1]
            scores.append(self.output(self.dropout(hidden.relu())))
        return torch.stack(scores, 2)


def _ahead(words: Tensor, count: int) -> Tensor:
    """Of the word so many places on; 0 beyond the last."""
    return pad(words[:, count:], (0, 0, 0, count))
