"""The decoder's use of a tree: each word is put beside its head (paper, section 7.2.1)."""

import torch
from torch import Tensor, nn

from hf_latent.layers.arc_scorers import with_root


class HeadAveraging(nn.Module):
    """[h_i; ĥ_i] for each word, with ĥ_i = Σ_j arcs_ij h_j: its head, or the average of its heads where arcs are soft.

    `words (..., n, hidden_size)` and `arcs (..., n, n + 1)` -> `(..., n, 2 · hidden_size)`. ROOT has a learned vector. Vectors
    of the relations to the heads, `(..., n, hidden_size)`, are added to ĥ where they are given ([`RelationAveraging`]).
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.root)

    def forward(self, words: Tensor, arcs: Tensor, relations: Tensor | None = None) -> Tensor:
        heads = arcs.to(words.dtype) @ with_root(words, self.root)
        return torch.cat([words, heads if relations is None else heads + relations], dim=-1)
