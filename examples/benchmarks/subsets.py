"""How fast subsets are inferred, beside the same recursion in torch, on the same scores in one run.

    python examples/benchmarks/subsets.py

Prints a table: milliseconds a batch, and how many times as long the reference in torch takes, whose results are checked to be
the same. The two take turns; a figure is the median over all calls.
"""

import argparse
from contextlib import nullcontext

import torch
from peers import measure
from torch import Tensor

from hf_latent import Subset
from hf_latent.inference.operators import reference_only

SIZES = ["32x50x5", "8x500x100"]
OURS, REFERENCE = "hf_latent", "in torch"


class Example:
    """Scores, and what is computed of them."""

    def __init__(self, batch: int, n: int, k: int) -> None:
        self.scores, self.wanted = torch.randn(batch, n).requires_grad_(), torch.randn(batch, n)
        self.structure = Subset(k)

    def log_partition(self, system: str) -> tuple[Tensor, ...]:
        """With its gradient."""
        with reference_only() if system == REFERENCE else nullcontext():
            total = self.structure.log_partition(self.scores)
            return total.detach(), *torch.autograd.grad(total.sum(), [self.scores])

    def marginals(self, system: str) -> tuple[Tensor, ...]:
        """With a gradient through them."""
        with reference_only() if system == REFERENCE else nullcontext():
            found = self.structure.marginals(self.scores)
            return found.detach(), *torch.autograd.grad((found * self.wanted).sum(), [self.scores])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="batch x items x chosen, such as 32x50x5")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{'batch x n x k':16}{'operation':24}{OURS:>12}{REFERENCE:>12}")
    for size in arguments.sizes:
        torch.manual_seed(0)
        example = Example(*map(int, size.split("x")))
        for name, call in (("log Z + backward", example.log_partition), ("marginals + backward", example.marginals)):
            for one, other in zip(call(OURS), call(REFERENCE), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
            found = measure(call, [OURS, REFERENCE], arguments.turns)
            print(f"{size:16}{name:24}{found[OURS]:>9.2f} ms{found[REFERENCE] / found[OURS]:>11.1f}x")


if __name__ == "__main__":
    main()
