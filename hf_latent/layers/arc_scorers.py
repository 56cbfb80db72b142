"""From word vectors to a score for each possible head of each word."""

import torch
from torch import Tensor, nn

from hf_latent.layers.relative_arc_scorers import CounterArcScorer, RelativeArcScorer


class BiaffineArcScorer(nn.Module):
    """score(i, j) = d_iᵀ U h_j + uᵀ h_j, with d and h two ReLU projections of the words (Dozat and Manning 2017).

    `words (batch, n, hidden_size)` -> `(batch, n, n + 1)`: column 0 is ROOT, which has a learned vector. Time and memory
    O(n² + n · arc_size²).
    """

    def __init__(self, hidden_size: int, arc_size: int = 100, dropout: float = 0.0) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.empty(hidden_size))
        self.dependent = nn.Sequential(nn.Linear(hidden_size, arc_size), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Sequential(nn.Linear(hidden_size, arc_size), nn.ReLU(), nn.Dropout(dropout))
        self.bilinear = nn.Parameter(torch.empty(arc_size, arc_size))
        self.head_bias = nn.Parameter(torch.empty(arc_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scores of about unit size, for word vectors of unit variance."""
        nn.init.normal_(self.root)
        nn.init.normal_(self.bilinear, std=len(self.bilinear) ** -0.5)
        nn.init.zeros_(self.head_bias)

    def forward(self, words: Tensor) -> Tensor:
        dependents, heads = self.dependent(words), self.head(with_root(words, self.root))
        return dependents @ self.bilinear @ heads.mT + (heads @ self.head_bias)[:, None, :]


class MLPArcScorer(nn.Module):
    """score(i, j) = vᵀ tanh(Wᵀ [h_j; h_i] + b), with h_j the head (paper, Eq. 23).

    `words (batch, n, hidden_size)` -> `(batch, n, n + 1)`: column 0 is ROOT, which has a learned vector. Memory
    O(n² · arc_size).
    """

    def __init__(self, hidden_size: int, arc_size: int = 100, dropout: float = 0.0) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.empty(hidden_size))
        # W of the concatenation is the sum of two halves, each applied once for a word and not once for a pair.
        self.dependent = nn.Linear(hidden_size, arc_size)
        self.head = nn.Linear(hidden_size, arc_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(arc_size, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.root)

    def forward(self, words: Tensor) -> Tensor:
        pairs = self.dependent(words)[:, :, None] + self.head(with_root(words, self.root))[:, None]
        scores: Tensor = self.output(self.dropout(pairs.tanh()))[..., 0]
        return scores


ARC_SCORERS: dict[str, type[nn.Module]] = {
    "biaffine": BiaffineArcScorer,
    "mlp": MLPArcScorer,
    "relative": RelativeArcScorer,
    "counter": CounterArcScorer,
}


def with_root(words: Tensor, root: Tensor) -> Tensor:
    """The candidates for a head, `(..., n + 1, hidden_size)`: ROOT, then the words."""
    return torch.cat([root.to(words.dtype).expand(*words.shape[:-2], 1, -1), words], dim=-2)
