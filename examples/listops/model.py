"""A network that can reach the answer of an expression through its latent tree alone."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hf_latent import DependencyTree, Estimator, LatentTreeLayer
from hf_latent.data.listops import OPERATORS, TOKENS
from hf_latent.layers import pool_words
from hf_latent.layers.latent_tree import LatentTree

PADDING = len(TOKENS)
# What the parser sees of a token: that it opens a list, that it closes one, or that it is a digit.
OPENS, CLOSES, DIGIT, NOTHING = range(4)
KINDS = [OPENS if token in OPERATORS else CLOSES if token == "]" else DIGIT for token in TOKENS] + [NOTHING]


class MessagePassing(nn.Module):
    """Values go up the tree: in each round, every operator makes its value from its own vector and its children's values.

    `words (batch, n, size)`, `collects (batch, n)`, True for operators, and `arcs (batch, n, n + 1)` -> the value that arrives
    at ROOT, `(batch, size)`. A child counts as much as its arc weighs. What is made of the children's sum is up to the
    operator, which opens and shuts the units that make it.
    """

    def __init__(self, size: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.message = nn.Sequential(nn.Linear(size, 4 * size), nn.ReLU(), nn.Linear(4 * size, size))
        self.units, self.gates, self.made = nn.Linear(2 * size, 4 * size), nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, words: Tensor, collects: Tensor, arcs: Tensor) -> Tensor:
        children = arcs[:, :, 1:].mT * collects[:, :, None]  # (batch, head, child)
        values = own = self.norm(words)
        for _ in range(self.rounds):
            collected = children @ self.message(values)
            units = self.units(torch.cat([words, collected], dim=2)).relu() * self.gates(words)
            made = self.norm(self.made(units))
            values = torch.where(collects[:, :, None], made, own)
        return (arcs[:, None, :, 0] @ values)[:, 0]


class ListOpsModel(nn.Module):
    """The parser sees the kinds of words; the decoder sees each word, without context, and the tree."""

    def __init__(
        self, estimator: Estimator, structure: DependencyTree, size: int = 64, rounds: int = 3, arc_size: int = 64
    ) -> None:
        super().__init__()
        self.kind_embedding = nn.Embedding(4, 32, padding_idx=NOTHING)
        self.encoder = nn.LSTM(32, 64, batch_first=True, bidirectional=True)
        self.tree = LatentTreeLayer(128, structure=structure, estimator=estimator, arc_size=arc_size)
        self.words = nn.Embedding(len(TOKENS) + 1, size, padding_idx=PADDING)
        self.messages = MessagePassing(size, rounds)
        self.output = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, 10))
        self.register_buffer("kinds", torch.tensor(KINDS))

    def forward(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, LatentTree, Tensor]:
        """The mean loss, the logits, the trees, and the number of words of each, from `input_ids (batch, tokens)`."""
        kinds = self.kinds[input_ids]
        packed = nn.utils.rnn.pack_padded_sequence(
            self.kind_embedding(kinds), (input_ids != PADDING).sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        encoded, _ = nn.utils.rnn.pad_packed_sequence(self.encoder(packed)[0], batch_first=True)
        is_word = (kinds == OPENS) | (kinds == DIGIT)
        word_ids = (is_word.long().cumsum(1) - 1).masked_fill(~is_word, -1)
        contextual, lengths = pool_words(encoded, word_ids)
        words, _ = pool_words(self.words(input_ids), word_ids)
        collects = pool_words((kinds == OPENS)[:, :, None].float(), word_ids)[0][:, :, 0] > 0

        def decode(arcs: Tensor) -> Tensor:
            return self.output(self.messages(words, collects, arcs))

        tree = self.tree(contextual, lengths, lambda arcs: cross_entropy(decode(arcs), labels, reduction="none"))
        logits = decode(tree.arcs)
        return cross_entropy(logits, labels) + tree.loss.mean(), logits, tree, lengths
