"""Random numbers that depend on a seed alone: SplitMix64 (Steele, Lea and Flood 2014). See `inference.random` for the same."""

import numpy as np

from hf_latent.inference.cpu.compiling import part


@part
def uniform(state):  # type: ignore[no-untyped-def]
    """A number in [0, 1) of 53 bits; `state (1,)` in uint64 moves on."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    bits = state[0]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return np.float64(bits >> np.uint64(11)) * 2.0**-53


@part
def drawn(weights, state):  # type: ignore[no-untyped-def]
    """A place, by its share of the sum of `weights`."""
    rest, place = uniform(state) * weights.sum(), 0
    for k in range(len(weights)):
        if weights[k] > 0.0:  # never what has probability 0, whatever the rounding
            place = k
            rest -= weights[k]
            if rest < 0.0:
                break
    return place
