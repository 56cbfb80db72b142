"""From word vectors and their heads to a score for each possible relation of each word to its head."""

import torch
from torch import Tensor, nn

from hf_latent.layers.arc_scorers import with_root

# So that what is computed for a batch stays in the cache of a processor: all at once take longer, and more memory.
RELATIONS_AT_ONCE = 10


class BiaffineRelationScorer(nn.Module):
    """score(i, r) = d_iᵀ U_r h_j + u_rᵀ d_i + v_rᵀ h_j + b_r for the head j of word i, with d and h two ReLU projections of the
    words (Dozat and Manning 2017).

    `words (..., n, hidden_size)`, `heads (..., n)` -> `(..., n, num_relations)`. Heads are 0 for ROOT, which has a learned
    vector, and j for the j-th word; what a negative one gets means nothing. In their place arcs may be given, floats `(..., n,
    n + 1)`: h is then the average of a word's heads. Time O(n · num_relations · relation_size²), memory O(n · relation_size).
    """

    def __init__(self, hidden_size: int, num_relations: int, relation_size: int = 100, dropout: float = 0.0) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.empty(hidden_size))
        self.dependent = nn.Sequential(nn.Linear(hidden_size, relation_size), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Sequential(nn.Linear(hidden_size, relation_size), nn.ReLU(), nn.Dropout(dropout))
        self.bilinear = nn.Parameter(torch.empty(relation_size, num_relations, relation_size))
        self.of_dependent = nn.Linear(relation_size, num_relations)
        self.of_head = nn.Linear(relation_size, num_relations, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Pairs of words say nothing of their relation at first, as in the paper."""
        nn.init.normal_(self.root)
        nn.init.zeros_(self.bilinear)

    def forward(self, words: Tensor, heads: Tensor) -> Tensor:
        dependents, candidates = self.dependent(words), self.head(with_root(words, self.root))
        if heads.is_floating_point():
            own = heads @ candidates
        else:
            places = heads.clamp(min=0)[..., None].expand(*heads.shape, candidates.shape[-1])
            own = candidates.gather(-2, places)
        size = self.bilinear.shape[-1]
        of_pairs = [
            ((dependents @ weights).unflatten(-1, (-1, size)) @ own[..., None])[..., 0]
            for weights in self.bilinear.flatten(1).split(RELATIONS_AT_ONCE * size, dim=1)
        ]
        scores: Tensor = torch.cat(of_pairs, dim=-1) + self.of_dependent(dependents) + self.of_head(own)
        return scores
