"""Modules for any network: scorers, the latent tree, and decoders that use it."""

from hf_latent.layers.arc_scorers import ARC_SCORERS, BiaffineArcScorer, MLPArcScorer
from hf_latent.layers.attention_pooling import AttentionPooling
from hf_latent.layers.conditional_random_field import ConditionalRandomField, TagConstraints
from hf_latent.layers.decomposable_attention import DecomposableAttention
from hf_latent.layers.head_averaging import HeadAveraging
from hf_latent.layers.kind_embedding import KindEmbedding
from hf_latent.layers.latent_layer import LatentLayer
from hf_latent.layers.latent_tree import LatentTree, LatentTreeLayer
from hf_latent.layers.relation_averaging import RelationAveraging
from hf_latent.layers.relation_scorers import BiaffineRelationScorer
from hf_latent.layers.relative_arc_scorers import CounterArcScorer, Counters, RelativeArcScorer
from hf_latent.layers.scalar_mix import ScalarMix
from hf_latent.layers.segment_pooling import SegmentPooling, segment_labels
from hf_latent.layers.span_probabilities import span_probabilities
from hf_latent.layers.span_scheme import SpanScheme
from hf_latent.layers.span_scorer import SpanScorer
from hf_latent.layers.span_segments import SpanSegments
from hf_latent.layers.word_pooling import pool_words

__all__ = [
    "ARC_SCORERS",
    "AttentionPooling",
    "BiaffineArcScorer",
    "BiaffineRelationScorer",
    "ConditionalRandomField",
    "CounterArcScorer",
    "Counters",
    "DecomposableAttention",
    "HeadAveraging",
    "KindEmbedding",
    "LatentLayer",
    "LatentTree",
    "LatentTreeLayer",
    "MLPArcScorer",
    "RelationAveraging",
    "RelativeArcScorer",
    "ScalarMix",
    "SegmentPooling",
    "SpanScheme",
    "SpanScorer",
    "SpanSegments",
    "TagConstraints",
    "pool_words",
    "segment_labels",
    "span_probabilities",
]
