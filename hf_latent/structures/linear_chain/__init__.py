"""Linear chains: their definition, and the algorithms on them."""

from hf_latent.structures.linear_chain.linear_chain import LinearChain

__all__ = ["LinearChain"]
