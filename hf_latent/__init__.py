"""Latent structure for Hugging Face: a network that makes a discrete, structured choice, learns it and shows it."""

from hf_latent.callbacks import RelianceCallback, TreeStatisticsCallback
from hf_latent.data_collator import DataCollatorForLatentTrees
from hf_latent.encoding import encode_words
from hf_latent.estimators import (
    Estimator,
    Latent,
    get_estimator,
    list_estimators,
    register_estimator,
    spigot,
    ste_identity,
)
from hf_latent.layers import ConditionalRandomField, HeadAveraging, LatentLayer, LatentTreeLayer
from hf_latent.modeling_hf_latent import *
from hf_latent.modeling_hf_latent import __all__ as _models
from hf_latent.models.latent_tree.parsing import parse
from hf_latent.models.latent_tree.pipeline_dependency_parsing import DependencyParsingPipeline
from hf_latent.models.latent_tree.pipeline_latent_tree_parsing import LatentTreeParsingPipeline
from hf_latent.models.selection.pipeline_word_selection import WordSelectionPipeline
from hf_latent.models.selection.rationale import Rationale
from hf_latent.models.spans.pipeline_span_tagging import SpanTaggingPipeline
from hf_latent.moved import with_old_names
from hf_latent.structures import (
    Categorical,
    ChainScores,
    DependencyTree,
    Independent,
    LinearChain,
    Segmentation,
    SegmentScores,
    Structure,
    Subset,
    SubsetChain,
)

__version__ = "0.1.0"
with_old_names(__name__)

__all__ = [
    *_models,
    "Categorical",
    "ChainScores",
    "ConditionalRandomField",
    "DataCollatorForLatentTrees",
    "DependencyParsingPipeline",
    "DependencyTree",
    "Estimator",
    "HeadAveraging",
    "Independent",
    "Latent",
    "LatentLayer",
    "LatentTreeLayer",
    "LatentTreeParsingPipeline",
    "LinearChain",
    "Rationale",
    "RelianceCallback",
    "SegmentScores",
    "Segmentation",
    "SpanTaggingPipeline",
    "Structure",
    "Subset",
    "SubsetChain",
    "TreeStatisticsCallback",
    "WordSelectionPipeline",
    "encode_words",
    "get_estimator",
    "list_estimators",
    "parse",
    "register_estimator",
    "spigot",
    "ste_identity",
]
