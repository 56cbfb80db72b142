"""Trees in the layouts of others, and back. The library's own layout is that of `DependencyTree`: `(batch, n, n + 1)`."""

import torch
from torch import Tensor

from hf_latent.inference.checks import check_lengths, check_range, describe, full_lengths


def heads_from_arcs(arcs: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The head of each word as CoNLL-U numbers it: 0 for ROOT, j for the j-th word; -1 beyond the sentence.

    From 0/1 arcs or, for marginals, the likeliest head of each word (which need not make up a tree). `(batch, n)`.
    """
    n = arcs.shape[1]
    if lengths is not None:
        lengths = check_lengths(lengths, arcs.shape[0], arcs.device)
        check_range(lengths, n)
    lengths = full_lengths(lengths, arcs)
    padding = torch.arange(n, device=arcs.device) >= lengths[:, None]
    return arcs.argmax(2).masked_fill(padding, -1)


def arcs_from_heads(heads: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """0/1 arcs `(batch, n, n + 1)` from `heads (batch, n)`: 0 for ROOT, j for the j-th word, negative beyond the sentence.

    Raises:
        ValueError: a head beyond n.
    """
    if heads.dim() != 2 or heads.is_floating_point():
        raise ValueError(f"`heads` must be an integer tensor of shape (batch, n), got {describe(heads)}.")
    n = heads.shape[1]
    if heads.numel() and heads.max() > n:
        raise ValueError(f"`heads` must lie between 0 (ROOT) and {n}, the number of words, got {int(heads.max())}.")
    arcs = torch.nn.functional.one_hot(heads.clamp(min=0).long(), n + 1)
    return (arcs * (heads >= 0)[:, :, None]).to(dtype)


def to_torch_struct(arcs: Tensor) -> Tensor:
    """`(batch, n, n)` indexed `[head, dependent]` with ROOT's arcs on the diagonal, as torch-struct has them."""
    words = arcs[:, :, 1:].mT
    return words - torch.diag_embed(words.diagonal(dim1=1, dim2=2)) + torch.diag_embed(arcs[:, :, 0])


def from_torch_struct(arcs: Tensor) -> Tensor:
    """The inverse of `to_torch_struct`."""
    root = arcs.diagonal(dim1=1, dim2=2)
    return torch.cat([root[:, :, None], (arcs - torch.diag_embed(root)).mT], dim=2)


def to_supar(arcs: Tensor) -> Tensor:
    """`(batch, n + 1, n + 1)` indexed `[dependent, head]` with a row for ROOT (all 0), as SuPar has them."""
    return torch.cat([torch.zeros_like(arcs[:, :1]), arcs], dim=1) if arcs.shape[1] else arcs.new_zeros(len(arcs), 1, 1)


def from_supar(arcs: Tensor) -> Tensor:
    """The inverse of `to_supar`."""
    return arcs[:, 1:]
