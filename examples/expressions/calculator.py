"""The decoder: values of operands go up a tree and become values of operators."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


class Calculator(nn.Module):
    """Values go up the tree: in each round, every operator makes its value from its own vector and its operands' values.

    A value is a distribution over the digits, of digits as of operators, so that what lies within another is calculated as
    it is. What is made of the operands' sum is up to the operator, which opens and shuts the units that make it.

    `input_ids (batch, n)` of the words and `arcs (batch, n, n + 1)` -> logits of the value that arrives at ROOT,
    `(batch, digits)`. An operand counts as much as its arc weighs; what hangs from a digit is lost.

    Args:
        operators: how many there are; they are the first words of the vocabulary.
        digits: the first one, and one after the last.
        rounds: of training: as many operators lie above each other there. (For what is no expression, more change nothing.)
        sides: 1 to add all operands up, 2 to see the sum of those before the operator beside that of those after it.
    """

    def __init__(
        self, operators: int, digits: tuple[int, int], rounds: int, sides: int = 1, size: int = 64, units: int = 512
    ) -> None:
        super().__init__()
        self.first, self.count, self.rounds = digits[0], digits[1] - digits[0], rounds
        self.operators, self.gates = nn.Embedding(operators, size), nn.Embedding(operators, units)
        nn.init.normal_(self.gates.weight, 1.0, 0.3)
        self.operands = nn.ModuleList(nn.Linear(self.count, size, bias=False) for _ in range(sides))
        for side in self.operands:
            nn.init.normal_(side.weight)
        self.units = nn.Linear((1 + sides) * size, units)
        self.output = nn.Sequential(nn.LayerNorm(units), nn.Linear(units, self.count))

    def forward(self, input_ids: Tensor, arcs: Tensor) -> Tensor:
        is_operator = input_ids < self.operators.num_embeddings
        # Operators alone have anything to calculate: their places in the sentence, `(batch, operators)`.
        count = int(is_operator.sum(1).max())
        places = is_operator.int().sort(dim=1, descending=True, stable=True).indices[:, :count]
        is_real = is_operator.gather(1, places)[:, :, None]
        operators = input_ids.gather(1, places) * is_real[:, :, 0]
        own, gates = self.operators(operators), self.gates(operators)
        operands = arcs[:, :, 1:].mT.gather(1, places[:, :, None].expand(-1, -1, input_ids.shape[1])) * is_real
        is_digit = (input_ids >= self.first) & (input_ids < self.first + self.count)
        digits = one_hot((input_ids - self.first).clamp(min=0, max=self.count - 1), self.count).to(arcs.dtype)
        digits = digits * is_digit[:, :, None]
        sides = [
            (operands @ digits, operands.gather(2, places[:, None, :].expand(-1, count, -1)))
            for operands in self._sides(operands, places)
        ]
        values = torch.zeros_like(sides[0][0])
        for _ in range(self.rounds if self.training else max(count, 1)):
            sums = [
                side(of_digits + of_operators @ values)
                for side, (of_digits, of_operators) in zip(self.operands, sides, strict=True)
            ]
            logits = self.output(self.units(torch.cat([own, *sums], dim=2)).relu() * gates)
            before, values = values, logits.softmax(2) * is_real
            if not self.training and torch.allclose(values, before, atol=1e-6):
                break
        at_root = arcs[:, :, 0].gather(1, places)[:, None] * is_real.mT
        return (at_root @ logits)[:, 0]

    def _sides(self, operands: Tensor, places: Tensor) -> list[Tensor]:
        """What hangs from each operator `(batch, operators, n)`: all of it, or what stands before it, and after it."""
        if len(self.operands) == 1:
            return [operands]
        before = torch.arange(operands.shape[2]) < places[:, :, None]
        return [operands * before, operands * ~before]
