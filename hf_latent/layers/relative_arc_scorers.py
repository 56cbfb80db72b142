"""Scorers that see how words stand to each other, and not where they stand: what they learn holds in longer sentences."""

import torch
from torch import Tensor, nn


class RelativeArcScorer(nn.Module):
    """score(i, j) = vᵀ tanh(W_d d_i + W_h h_j + W_c (c_j - c_i) + side) - near(d_i, side) · r(|i - j|).

    d and h are what is known of the dependent and the head, c their counters, `side` a learned vector for heads that stand
    before their word, and its opposite for those after it. r(k) = 2 log(1 + k) / (1 + log(1 + k)) grows with the distance
    and is bounded, so that between words of a sentence longer than any that was learned from, it does not drown all else. In
    the beginning, near heads score higher. The score of ROOT is linear in d_i.

    `words (batch, n, hidden_size)`, of which the last `counters` features count something (see `Counters`), and are seen as
    differences alone -> `(batch, n, n + 1)`: column 0 is ROOT. Memory O(n² · arc_size).
    """

    def __init__(self, hidden_size: int, arc_size: int = 100, dropout: float = 0.0, counters: int = 0) -> None:
        super().__init__()
        known = hidden_size - counters
        self.known = known
        self.dependent = nn.Linear(known, arc_size)
        self.head = nn.Linear(known, arc_size, bias=False)
        self.counts = nn.Linear(counters, arc_size, bias=False) if counters else None
        self.side = nn.Parameter(torch.empty(arc_size))
        self.near = nn.Linear(known, 2)
        self.root = nn.Linear(known, 1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(arc_size, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Hidden units that tell differences of 1 apart; near heads first."""
        nn.init.normal_(self.side, std=0.5)
        if self.counts is not None:
            nn.init.normal_(self.counts.weight)
        nn.init.zeros_(self.near.weight)
        nn.init.ones_(self.near.bias)

    def forward(self, words: Tensor) -> Tensor:
        known, counted = words[..., : self.known], words[..., self.known :]
        dependents, heads = self.dependent(known), self.head(known)
        if self.counts is not None:
            counts = self.counts(counted)
            dependents, heads = dependents - counts, heads + counts
        places = torch.arange(words.shape[1], device=words.device)
        offset = places[None, :] - places[:, None]  # from the dependent, in the row, to the head
        side = torch.sign(offset).to(words.dtype)
        hidden = torch.tanh(dependents[:, :, None] + heads[:, None] + side[:, :, None] * self.side)
        scores = self.output(self.dropout(hidden))[..., 0]
        distance = torch.log1p(offset.abs().to(words.dtype))
        near = self.near(known)
        slope = torch.where(offset < 0, near[..., :1], near[..., 1:])
        return torch.cat([self.root(known), scores - slope * (2 * distance / (1 + distance))], dim=2)


class Counters(nn.Module):
    """What has been counted before each token: the sum, over the tokens before it, of a step of -1, 0 or 1 that each makes.

    Which step a token makes is learned: in evaluation mode the best of three, by scores that are linear in the token's vector;
    in training mode the mean of the three, by the softmax of the scores over `temperature`. With a temperature that falls to
    0.1 in training (`ScheduleCallback(counter_temperature=…)`), means become whole numbers, and a count is exact after any
    number of tokens. How deep a word is nested, for one, is a counter that brackets move up and down.

    `tokens (batch, tokens, hidden_size)` -> `(batch, tokens, counters)`.
    """

    def __init__(self, hidden_size: int, counters: int = 1) -> None:
        super().__init__()
        self.steps = nn.Linear(hidden_size, 3 * counters, bias=False)
        self.temperature = 1.0
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scores of nearly unit size, for vectors of unit variance."""
        nn.init.normal_(self.steps.weight, std=0.7 * self.steps.in_features**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.steps(tokens).unflatten(-1, (3, -1))  # of -1, 0 and 1
        if self.training:
            chances = (scores / self.temperature).softmax(-2)
            steps = chances[..., 2, :] - chances[..., 0, :]
        else:
            steps = (scores.argmax(-2) - 1).to(scores.dtype)
        return steps.cumsum(1) - steps


class CounterArcScorer(nn.Module):
    """A `RelativeArcScorer` that sees the words, and `Counters` over them.

    `words (batch, n, hidden_size)` -> `(batch, n, n + 1)`: column 0 is ROOT. Memory O(n² · arc_size).
    """

    def __init__(self, hidden_size: int, arc_size: int = 100, dropout: float = 0.0, counters: int = 1) -> None:
        super().__init__()
        self.counters = Counters(hidden_size, counters)
        self.scorer = RelativeArcScorer(hidden_size + counters, arc_size, dropout, counters)

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = self.scorer(torch.cat([words, self.counters(words)], dim=2))
        return scores
