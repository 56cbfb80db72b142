"""Linear chains: their definition, and the algorithms on them; by scores of pairs, or of tags and pairs."""

from hf_latent.structures.linear_chain.chain_scores import BestTags, ChainScores
from hf_latent.structures.linear_chain.linear_chain import LinearChain

__all__ = ["BestTags", "ChainScores", "LinearChain"]
