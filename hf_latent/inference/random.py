"""Random numbers that depend on seeds alone, on any device: SplitMix64 (Steele, Lea and Flood 2014)."""

import torch
from torch import Tensor

# As signed numbers, which is what torch computes with; products wrap around alike.
_GAMMA, _FIRST, _SECOND = (value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shifted(bits: Tensor, places: int) -> Tensor:
    """A shift to the right that lets zeros in, not the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def uniforms(seeds: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each seed, `(..., count)` in float64, from int64 `seeds (...)`."""
    bits = seeds[..., None] + _GAMMA * torch.arange(1, count + 1, device=seeds.device)
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    bits = bits ^ _shifted(bits, 31)
    return _shifted(bits, 11).double() * 2.0**-53


def draw_seeds(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Seeds from a generator (of whatever device), int64 on `device`."""
    if generator is None:  # not passed on as None, which a compiled graph with sizes that change does not take
        return torch.randint(2**62, shape).to(device)
    return torch.randint(2**62, shape, generator=generator, device=generator.device).to(device)
