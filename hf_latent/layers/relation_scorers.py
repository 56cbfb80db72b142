"""From word vectors and their heads to a score for each possible relation of each word to its head."""

import torch
from torch import Tensor, nn

from hf_latent.layers.arc_scorers import with_root


class BiaffineRelationScorer(nn.Module):
    """score(i, r) = [d_i; 1]ᵀ U_r [h_j; 1] for the head j of word i, with d and h two ReLU projections of the words
    (Dozat and Manning 2017).

    `words (batch, n, hidden_size)`, `heads (batch, n)` -> `(batch, n, num_relations)`. Heads are 0 for ROOT, which has a
    learned vector, and j for the j-th word; what a negative one gets means nothing. Time O(n · num_relations · relation_size²),
    memory O(n · num_relations · relation_size).
    """

    def __init__(self, hidden_size: int, num_relations: int, relation_size: int = 100, dropout: float = 0.0) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.empty(hidden_size))
        self.dependent = nn.Sequential(nn.Linear(hidden_size, relation_size), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Sequential(nn.Linear(hidden_size, relation_size), nn.ReLU(), nn.Dropout(dropout))
        self.bilinear = nn.Parameter(torch.empty(relation_size + 1, num_relations, relation_size + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All relations are equally likely at first, as in the paper."""
        nn.init.normal_(self.root)
        nn.init.zeros_(self.bilinear)

    def forward(self, words: Tensor, heads: Tensor) -> Tensor:
        dependents, candidates = _with_one(self.dependent(words)), _with_one(self.head(with_root(words, self.root)))
        own = candidates.gather(1, heads.clamp(min=0)[..., None].expand(-1, -1, candidates.shape[-1]))
        of_dependents = (dependents @ self.bilinear.flatten(1)).unflatten(-1, self.bilinear.shape[1:])
        return (of_dependents @ own[..., None])[..., 0]


def _with_one(vectors: Tensor) -> Tensor:
    return nn.functional.pad(vectors, (0, 1), value=1.0)
