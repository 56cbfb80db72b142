"""How fast chains are inferred, beside pytorch-crf and torch-struct, on the same scores in one run.

    pip install 'hf_latent[benchmarks]'
    python examples/benchmarks/chains.py

Prints a table: milliseconds a batch, and how many times as long each peer takes. The systems take turns; a figure is the median
over all calls. A peer that is not installed is left out.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from peers import installed, measure
from torch import Tensor

from hf_latent.layers import ConditionalRandomField

SIZES = ["32x50x9", "8x512x33"]
OURS, PYTORCH_CRF, TORCH_STRUCT = "hf_latent", "pytorch-crf", "torch-struct"
MODULES = {PYTORCH_CRF: "torchcrf", TORCH_STRUCT: "torch_struct"}
PEERS = {name: found for name, module in MODULES.items() if (found := installed(module))}


class Example:
    """Emissions and tags, and the same layer in the way of each system."""

    def __init__(self, batch: int, n: int, tags: int) -> None:
        self.emissions, self.tags = torch.randn(batch, n, tags).requires_grad_(), torch.randint(tags, (batch, n))
        self.ours = ConditionalRandomField(tags, batch_first=True)
        self.layers: dict[str, Any] = {OURS: self.ours}
        if PYTORCH_CRF in PEERS:
            self.layers[PYTORCH_CRF] = PEERS[PYTORCH_CRF].CRF(tags, batch_first=True)
            self.layers[PYTORCH_CRF].load_state_dict(self.ours.state_dict())

    def struct(self) -> Any:
        """torch-struct's distribution, from scores of pairs (which are part of the work), second tag first."""
        pairs = self.ours.transitions.T + self.emissions[:, 1:, :, None]
        first = pairs[:, :1] + (self.ours.start_transitions + self.emissions[:, 0])[:, None, None, :]
        return PEERS[TORCH_STRUCT].LinearChainCRF(torch.cat([first, pairs[:, 1:]], 1))

    def loss(self, system: str) -> Tensor:
        """The negative log-likelihood, with its gradient."""
        if system == TORCH_STRUCT:
            chain = self.struct()
            parts = chain.struct.to_parts(self.tags, self.emissions.shape[2]).to(chain.log_potentials)
            loss = -chain.log_prob(parts).sum()
        else:
            loss = -self.layers[system](self.emissions, self.tags)
        return torch.autograd.grad(loss, [self.emissions, self.ours.transitions if system == TORCH_STRUCT else
                                          self.layers[system].transitions])[0]  # fmt: skip

    def viterbi(self, system: str) -> Any:
        """Best tags."""
        return self.struct().argmax if system == TORCH_STRUCT else self.layers[system].decode(self.emissions)

    def marginals(self, system: str) -> Tensor:
        """Probabilities: of tags from ours, of pairs from torch-struct."""
        return self.struct().marginals if system == TORCH_STRUCT else self.ours.marginals(self.emissions)

    def tasks(self) -> dict[str, tuple[Callable[[str], Any], list[str]]]:
        """Each operation, and who has it."""
        everyone = [OURS, *PEERS]
        without = [name for name in everyone if name != PYTORCH_CRF]
        return {
            "loss + backward": (self.loss, everyone),
            "Viterbi": (self.viterbi, everyone),
            "marginals": (self.marginals, without),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="batch x words x tags, such as 32x50x9")
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers'
    print(f"{'batch x n x tags':18}{'operation':18}{OURS:>12}" + "".join(f"{name:>16}" for name in PEERS))
    for size in arguments.sizes:
        torch.manual_seed(0)
        for operation, (call, systems) in Example(*map(int, size.split("x"))).tasks().items():
            found = measure(call, systems, arguments.turns)
            ratios = (f"{found[name] / found[OURS]:.1f}x" if name in found else "-" for name in PEERS)
            print(f"{size:18}{operation:18}{found[OURS]:>9.2f} ms" + "".join(f"{ratio:>16}" for ratio in ratios))


if __name__ == "__main__":
    main()
