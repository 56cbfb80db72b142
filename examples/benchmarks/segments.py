"""How fast labelled segmentations are inferred, beside torch-struct, on the same scores in one run.

    pip install 'hf_latent[benchmarks]'
    python examples/benchmarks/segments.py

Prints a table: milliseconds a batch, and how many times as long torch-struct takes; its results are checked to be the same. The
systems take turns; a figure is the median over all calls. Without torch-struct, the table has our figures alone.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from peers import installed, measure
from torch import Tensor

from hf_latent import SegmentScores
from hf_latent.structures.segmentation import conversions

SIZES = ["16x100x8x5"]
OURS, TORCH_STRUCT = "hf_latent", "torch-struct"
PEERS = {name: found for name, module in {TORCH_STRUCT: "torch_struct"}.items() if (found := installed(module))}


class Example:
    """Scores of segments and of transitions, and what each system makes of them."""

    def __init__(self, batch: int, n: int, longest: int, labels: int) -> None:
        self.segments = torch.randn(batch, n, longest, labels).requires_grad_()
        self.transitions = torch.randn(labels, labels).requires_grad_()

    def ours(self) -> SegmentScores:
        return SegmentScores(self.segments, self.transitions)

    def theirs(self) -> Any:
        """torch-struct's distribution, from scores of segments by the label before (which are part of the work)."""
        batch, n = self.segments.shape[:2]
        edges = conversions.to_torch_struct(self.segments, self.transitions)
        return PEERS[TORCH_STRUCT].SemiMarkovCRF(edges, torch.full((batch,), n + 1))

    def log_partition(self, system: str) -> tuple[Tensor, ...]:
        """With its gradients."""
        total = self.theirs().partition if system == TORCH_STRUCT else self.ours().log_partition()
        return total.detach(), *torch.autograd.grad(total.sum(), [self.segments, self.transitions])

    def argmax(self, system: str) -> tuple[Tensor, ...]:
        """0/1 segments."""
        _, _, longest, labels = self.segments.shape
        if system == TORCH_STRUCT:
            return (self.theirs().argmax[:, :, 1:].sum(4),)
        return (conversions.segments_from_choices(self.ours().argmax(), longest, labels),)

    def marginals(self, system: str) -> tuple[Tensor, ...]:
        """Probabilities of segments."""
        return (self.theirs().marginals[:, :, 1:].sum(4) if system == TORCH_STRUCT else self.ours().marginals().detach(),)

    def tasks(self) -> dict[str, Callable[[str], tuple[Tensor, ...]]]:
        return {"log Z + backward": self.log_partition, "argmax": self.argmax, "marginals": self.marginals}


def check(call: Callable[[str], tuple[Tensor, ...]]) -> None:
    """Raises unless both find the same, in float32."""
    for ours, theirs in zip(call(OURS), call(TORCH_STRUCT), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, help="batch x words x longest segment x labels, such as 16x100x8x5"
    )
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peer's
    print(f"{'size':14}{'operation':18}{OURS:>12}" + "".join(f"{name:>16}" for name in PEERS))
    for size in arguments.sizes:
        torch.manual_seed(0)
        for operation, call in Example(*map(int, size.split("x"))).tasks().items():
            if PEERS:
                check(call)
            found = measure(call, [OURS, *PEERS], arguments.turns)
            ratios = "".join(f"{f'{found[name] / found[OURS]:.0f}x':>16}" for name in PEERS)
            print(f"{size:14}{operation:18}{found[OURS]:>9.2f} ms{ratios}", flush=True)


if __name__ == "__main__":
    main()
