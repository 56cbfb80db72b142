"""A structure of your own: which words matter? A subset of them is chosen, and the decoder sees those alone.

    python examples/custom_structure.py

Three methods make a structure; every estimator works on it then. The data is made here: words vote for or against, and those
with one of four marks count. Which mark that is, and what a word votes, is for the network to find, from the outcomes alone.
"""

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from tqdm import tqdm

from hf_latent import Structure, get_estimator, list_estimators

LENGTH, SYMBOLS, MARKS = 6, 8, 4


@dataclass(frozen=True)
class Subset(Structure):
    """Any subset of the words. Scores are `(batch, n)`: a word is in if its score is positive."""

    def argmax(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        scores, lengths = self.check(scores.detach(), lengths)
        return ((scores > 0) & self.mask(scores, lengths)).to(scores.dtype)

    def log_partition(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        # Each word is in or out, whatever the others are: the sum over subsets is a product of 1 + exp(score).
        scores, lengths = self.check(scores, lengths)
        return softplus(scores).masked_fill(~self.mask(scores, lengths), 0.0).sum(1)

    def enumerate(self, size: int) -> Tensor:
        return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * size).view(-1, size) if size else torch.zeros(1, 0)


class Network(nn.Module):
    """The chooser sees each word's mark, the decoder each chosen word's symbol."""

    def __init__(self, estimator: str) -> None:
        super().__init__()
        self.structure, self.estimator = Subset(), get_estimator(estimator)
        self.scores = nn.Sequential(nn.Embedding(MARKS, 16), nn.Linear(16, 1))
        self.votes, self.bias = nn.Embedding(SYMBOLS, 1), nn.Parameter(torch.zeros(()))
        nn.init.normal_(self.votes.weight, std=0.1)  # a strong first opinion would make the chooser avoid what counts

    def forward(self, marks: Tensor, symbols: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def decode(chosen: Tensor) -> Tensor:
            return (chosen * self.votes(symbols)[..., 0]).sum(1) + self.bias

        def losses(chosen: Tensor) -> Tensor:
            return binary_cross_entropy_with_logits(decode(chosen), labels, reduction="none")

        latent = self.estimator(self.structure, self.scores(marks)[..., 0], None, losses)
        return losses(latent.value).mean() + latent.loss.mean(), latent.value, decode(latent.value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimator", default="spigot_eg", choices=list_estimators())
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    worth = torch.tensor([1.0, -1.0]).repeat(SYMBOLS // 2)  # what a symbol says, if it counts
    network = Network(arguments.estimator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.02)
    for _ in tqdm(range(arguments.steps), unit="batch"):
        marks, symbols = torch.randint(MARKS, (64, LENGTH)), torch.randint(SYMBOLS, (64, LENGTH))
        counts = marks == 2
        labels = ((counts * worth[symbols]).sum(1) > 0).float()
        loss, chosen, logits = network(marks, symbols, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"answers that are right  {((logits > 0) == labels.bool()).float().mean():.1%}")
    print(f"words chosen or left rightly  {((chosen > 0.5) == counts).float().mean():.1%}")


if __name__ == "__main__":
    main()
