from hf_latent.models.latent_tree.configuration_latent_tree import LatentTreeConfig
from hf_latent.models.latent_tree.modeling_latent_tree import (
    LatentTreeClassifierOutput,
    LatentTreeForSequenceClassification,
    LatentTreeModel,
    LatentTreeModelOutput,
)

__all__ = [
    "LatentTreeClassifierOutput",
    "LatentTreeConfig",
    "LatentTreeForSequenceClassification",
    "LatentTreeModel",
    "LatentTreeModelOutput",
]
