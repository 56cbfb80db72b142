"""Heads with relations, as a decoder sees them."""

import torch
from torch import Tensor, nn

from hf_latent.layers.relation_scorers import BiaffineRelationScorer


class RelationAveraging(nn.Module):
    """r̂_i = Σ_r p(r | i) e_r for each word i, with p(· | i) the softmax of the relation scores of word i to its head (where
    arcs are soft, to the average of its heads) and e_r a learned vector of relation r.

    It is what a decoder sees of the relations, beside the ĥ_i of [`HeadAveraging`]. `words (..., n, hidden_size)`, `arcs
    (..., n, n + 1)` -> `(..., n, output_size)`.
    """

    def __init__(
        self, hidden_size: int, num_relations: int, output_size: int, relation_size: int = 100, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.scorer = BiaffineRelationScorer(hidden_size, num_relations, relation_size, dropout)
        self.vectors = nn.Parameter(torch.empty(num_relations, output_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.vectors)

    def forward(self, words: Tensor, arcs: Tensor) -> Tensor:
        return self.scorer(words, arcs.to(words.dtype)).softmax(-1) @ self.vectors
