"""Networks that answer an expression: through a latent tree, through the gold tree, and with no tree."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_latent import DependencyTree, Estimator, LatentTreeLayer
from hf_latent.data.listops import DIGITS, OPERATORS, TOKENS
from hf_latent.layers import Counters, KindEmbedding, RelativeArcScorer, pool_words
from hf_latent.structures.dependency_tree.conversions import arcs_from_heads, heads_from_arcs

PADDING = len(TOKENS)
# What the parser sees of a token: that it opens a list, that it closes one, or that it is a digit.
OPENS, CLOSES, DIGIT, NOTHING = range(4)
KINDS = [OPENS if token in OPERATORS else CLOSES if token == "]" else DIGIT for token in TOKENS] + [NOTHING]
# As many lists lie within each other in training. (For what is not a list of lists, more rounds change nothing.)
ROUNDS = 3


class Calculator(nn.Module):
    """Values go up the tree: in each round, every operator makes its value from its own vector and its operands' values.

    A value is a distribution over the ten digits, of digits as of lists, so that a list within a list is calculated as any
    other is. What is made of the operands' sum is up to the operator, which opens and shuts the units that make it.

    `input_ids (batch, n)` of the words and `arcs (batch, n, n + 1)` -> logits of the value that arrives at ROOT, `(batch, 10)`.
    An operand counts as much as its arc weighs; what hangs from a digit is lost.
    """

    def __init__(self, size: int = 64, units: int = 512) -> None:
        super().__init__()
        self.operators, self.gates = nn.Embedding(len(OPERATORS), size), nn.Embedding(len(OPERATORS), units)
        nn.init.normal_(self.gates.weight, 1.0, 0.3)
        self.operands = nn.Linear(len(DIGITS), size, bias=False)
        nn.init.normal_(self.operands.weight)
        self.units = nn.Linear(2 * size, units)
        self.output = nn.Sequential(nn.LayerNorm(units), nn.Linear(units, len(DIGITS)))

    def forward(self, input_ids: Tensor, arcs: Tensor) -> Tensor:
        is_operator = input_ids < len(OPERATORS)
        # Operators alone have anything to calculate: their places in the sentence, `(batch, operators)`.
        count = int(is_operator.sum(1).max())
        places = is_operator.int().sort(dim=1, descending=True, stable=True).indices[:, :count]
        is_real = is_operator.gather(1, places)[:, :, None]
        operators = input_ids.gather(1, places) * is_real[:, :, 0]
        own, gates = self.operators(operators), self.gates(operators)
        operands = arcs[:, :, 1:].mT.gather(1, places[:, :, None].expand(-1, -1, input_ids.shape[1])) * is_real
        digits = one_hot((input_ids - TOKENS.index("0")).clamp(min=0, max=9), 10).to(arcs.dtype)
        of_digits = operands @ (digits * (~is_operator & (input_ids != PADDING))[:, :, None])
        of_lists = operands.gather(2, places[:, None, :].expand(-1, count, -1))
        values = torch.zeros_like(of_digits)
        for _ in range(ROUNDS if self.training else max(count, 1)):
            sums = self.operands(of_digits + of_lists @ values)
            logits = self.output(self.units(torch.cat([own, sums], dim=2)).relu() * gates)
            before, values = values, logits.softmax(2) * is_real
            if not self.training and torch.allclose(values, before, atol=1e-6):
                break
        at_root = arcs[:, :, 0].gather(1, places)[:, None] * is_real.mT
        return (at_root @ logits)[:, 0]


class TreeModel(nn.Module):
    """The parser sees the kinds of tokens and counts them; the decoder sees each word, without context, and the tree.

    Closing brackets are no words, but the parser counts them. With `estimator=None`, the decoder is given the gold tree.
    """

    def __init__(
        self, estimator: Estimator | None, structure: DependencyTree, scorer: str = "counter", kinds: bool = True
    ) -> None:
        super().__init__()
        self.calculator = Calculator()
        self.tree: LatentTreeLayer | None = None
        if estimator is not None:
            seen = KINDS if kinds else list(range(PADDING + 1))
            self.embeddings = KindEmbedding(seen, 16)
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
        is_word = (input_ids != TOKENS.index("]")) & (input_ids != PADDING)
        word_ids = (is_word.long().cumsum(1) - 1).masked_fill(~is_word, -1)
        words, lengths = pool_words(input_ids[:, :, None], word_ids)
        n = words.shape[1]
        words = words[:, :, 0].masked_fill(torch.arange(n) >= lengths[:, None], PADDING)
        if self.tree is None:
            logits = self.calculator(words, arcs_from_heads(gold_heads[:, :n]))
            return {"loss": cross_entropy(logits, labels), "logits": logits, "heads": gold_heads[:, :n]}

        def loss_of(arcs: Tensor) -> Tensor:
            return cross_entropy(self.calculator(words, arcs), labels, reduction="none")

        tree = self.tree(pool_words(self._seen(input_ids), word_ids)[0], lengths, loss_of)
        logits = self.calculator(words, tree.arcs)
        heads = input_ids if self.training else heads_from_arcs(self.tree.structure.argmax(tree.scores, lengths), lengths)
        return {"loss": cross_entropy(logits, labels) + tree.loss.mean(), "logits": logits, "heads": heads}

    def _seen(self, input_ids: Tensor) -> Tensor:
        """What the parser sees of each token, `(batch, tokens, size)`."""
        kinds = self.embeddings(input_ids)
        if isinstance(self.context, Counters):
            return torch.cat([kinds, self.context(kinds)], dim=2)
        return bilstm(self.context, kinds, input_ids != PADDING)


class SequenceModel(nn.Module):
    """No tree: a BiLSTM or a Transformer over the tokens, and the mean and the maximum of its vectors."""

    def __init__(self, kind: str, size: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(PADDING + 1, size, padding_idx=PADDING)
        self.size = size
        if kind == "bilstm":
            self.encoder: Any = nn.LSTM(size, size // 2, layers, batch_first=True, bidirectional=True, dropout=dropout)
        else:
            layer = nn.TransformerEncoderLayer(size, 4, 4 * size, dropout, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.output = nn.Sequential(nn.Linear(2 * size, 2 * size), nn.ReLU(), nn.Linear(2 * size, 10))

    def forward(self, input_ids: Tensor, labels: Tensor, gold_heads: Tensor | None = None) -> dict[str, Tensor]:
        is_token = input_ids != PADDING
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
