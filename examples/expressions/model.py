"""Networks that answer an expression: through a latent tree, through the gold tree, and with no tree."""

from typing import Any

import torch
from calculator import Calculator
from tasks import Task
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_latent import DependencyTree, Estimator, LatentTreeLayer
from hf_latent.estimators import TaskLoss
from hf_latent.layers import Counters, KindEmbedding, RelativeArcScorer, pool_words
from hf_latent.structures.dependency_tree.conversions import arcs_from_heads, heads_from_arcs


class TreeModel(nn.Module):
    """The parser sees the kinds of tokens and counts them; the decoder sees each word, without context, and the tree.

    Brackets are no words, but the parser counts them. With `estimator=None`, the decoder is given the gold tree.
    """

    def __init__(
        self,
        task: Task,
        estimator: Estimator | None,
        structure: DependencyTree,
        scorer: str = "counter",
        kinds: bool = True,
    ) -> None:
        super().__init__()
        self.padding, self.brackets = len(task.tokens), task.brackets
        digits = (task.first_digit, len(task.tokens))
        self.calculator = Calculator(task.operators, digits, task.depth, task.sides)
        self.tree: LatentTreeLayer | None = None
        if estimator is not None:
            seen = task.kinds if kinds else list(range(self.padding))
            self.embeddings = KindEmbedding([*seen, max(seen) + 1], 16)  # the last is padding
            self.context: nn.Module = (
                Counters(16) if scorer == "counter" else nn.LSTM(16, 64, batch_first=True, bidirectional=True)
            )
            relative = RelativeArcScorer(17, arc_size=64, counters=1)
            self.tree = LatentTreeLayer(
                17 if scorer == "counter" else 128,
                relative if scorer == "counter" else scorer,
                structure=structure,
                estimator=estimator,
                arc_size=64,
            )

    def forward(self, input_ids: Tensor, labels: Tensor, gold_heads: Tensor) -> dict[str, Tensor]:
        """The mean loss, the logits and the heads, from `input_ids (batch, tokens)`."""
        words, word_ids, lengths = self._words(input_ids)
        if self.tree is None:
            heads = gold_heads[:, : words.shape[1]]
            logits = self.calculator(words, arcs_from_heads(heads))
            return {"loss": cross_entropy(logits, labels), "logits": logits, "heads": heads}
        tree = self.tree(self._seen(input_ids, word_ids), lengths, self._loss_of(words, labels))
        logits = self.calculator(words, tree.arcs)
        heads = input_ids if self.training else heads_from_arcs(self.tree.structure.argmax(tree.scores, lengths), lengths)
        return {"loss": cross_entropy(logits, labels) + tree.loss.mean(), "logits": logits, "heads": heads}

    def scores_and_loss(self, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, TaskLoss]:
        """What an estimator is given: scores of arcs, lengths, and the loss of each expression as a function of arcs."""
        assert self.tree is not None
        words, word_ids, lengths = self._words(input_ids)
        return self.tree.scorer(self._seen(input_ids, word_ids)), lengths, self._loss_of(words, labels)

    def _words(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The words `(batch, n)`, the word of each token, -1 for brackets and padding, and the number of words."""
        is_word = ~torch.isin(input_ids, torch.tensor([*self.brackets, self.padding]))
        word_ids = (is_word.long().cumsum(1) - 1).masked_fill(~is_word, -1)
        words, lengths = pool_words(input_ids[:, :, None], word_ids)
        is_there = torch.arange(words.shape[1]) < lengths[:, None]
        return words[:, :, 0].masked_fill(~is_there, self.padding), word_ids, lengths

    def _loss_of(self, words: Tensor, labels: Tensor) -> TaskLoss:
        return lambda arcs: cross_entropy(self.calculator(words, arcs), labels, reduction="none")

    def _seen(self, input_ids: Tensor, word_ids: Tensor) -> Tensor:
        """What the parser sees of each word, `(batch, n, size)`; the counters have counted the brackets, too."""
        kinds = self.embeddings(input_ids)
        if isinstance(self.context, Counters):
            tokens = torch.cat([kinds, self.context(kinds)], dim=2)
        else:
            tokens = bilstm(self.context, kinds, input_ids != self.padding)
        return pool_words(tokens, word_ids)[0]


class SequenceModel(nn.Module):
    """No tree: a BiLSTM or a Transformer over the tokens, and the mean and the maximum of its vectors."""

    def __init__(self, task: Task, kind: str, size: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.padding = len(task.tokens)
        self.embeddings = nn.Embedding(self.padding + 1, size, padding_idx=self.padding)
        self.size = size
        if kind == "bilstm":
            self.encoder: Any = nn.LSTM(size, size // 2, layers, batch_first=True, bidirectional=True, dropout=dropout)
        else:
            layer = nn.TransformerEncoderLayer(size, 4, 4 * size, dropout, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.output = nn.Sequential(nn.Linear(2 * size, 2 * size), nn.ReLU(), nn.Linear(2 * size, task.digits))

    def forward(self, input_ids: Tensor, labels: Tensor, gold_heads: Tensor | None = None) -> dict[str, Tensor]:
        is_token = input_ids != self.padding
        tokens = self.embeddings(input_ids)
        if isinstance(self.encoder, nn.LSTM):
            tokens = bilstm(self.encoder, tokens, is_token)
        else:
            tokens = self.encoder(tokens + sinusoids(tokens.shape[1], self.size), src_key_padding_mask=~is_token)
        mean = (tokens * is_token[:, :, None]).sum(1) / is_token.sum(1, keepdim=True)
        largest = tokens.masked_fill(~is_token[:, :, None], -torch.inf).amax(1)
        logits = self.output(torch.cat([mean, largest], dim=1))
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def bilstm(encoder: nn.Module, tokens: Tensor, is_token: Tensor) -> Tensor:
    packed = pack_padded_sequence(tokens, is_token.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(encoder(packed)[0], batch_first=True)[0]


def sinusoids(length: int, size: int) -> Tensor:
    """Positions as in Vaswani et al. (2017), `(length, size)`."""
    rates = 10_000 ** -(torch.arange(0, size, 2) / size)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
