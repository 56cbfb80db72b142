from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_classification import (
    LatentTreeClassifierOutput,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
)
from hf_latent.models.latent_tree.modeling_latent_tree import LatentTreeModel, LatentTreeModelOutput

__all__ = [
    "LatentTreeClassifierOutput",
    "LatentTreeConfig",
    "LatentTreeForPairClassification",
    "LatentTreeForSequenceClassification",
    "LatentTreeForTokenClassification",
    "LatentTreeModel",
    "LatentTreeModelOutput",
]
