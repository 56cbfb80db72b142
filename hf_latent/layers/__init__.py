"""Modules for any network: scorers, the latent tree, and decoders that use it."""

from hf_latent.layers.arc_scorers import BiaffineArcScorer, MLPArcScorer
from hf_latent.layers.attention_pooling import AttentionPooling
from hf_latent.layers.decomposable_attention import DecomposableAttention
from hf_latent.layers.head_averaging import HeadAveraging
from hf_latent.layers.latent_layer import LatentLayer
from hf_latent.layers.latent_tree import LatentTree, LatentTreeLayer
from hf_latent.layers.word_pooling import pool_words

__all__ = [
    "AttentionPooling",
    "BiaffineArcScorer",
    "DecomposableAttention",
    "HeadAveraging",
    "LatentLayer",
    "LatentTree",
    "LatentTreeLayer",
    "MLPArcScorer",
    "pool_words",
]
