"""Encoders and models of the Hugging Face kind; importing this makes them known to the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from hf_latent.models.bilstm import BiLstmConfig, BiLstmModel
from hf_latent.models.latent_tree import (
    LatentTreeConfig,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
    LatentTreeModel,
)

AutoConfig.register("bilstm", BiLstmConfig)
AutoModel.register(BiLstmConfig, BiLstmModel)
AutoConfig.register("latent_tree", LatentTreeConfig)
AutoModel.register(LatentTreeConfig, LatentTreeModel)
# Of the two, `architectures` in a saved model's configuration tells which to load.
AutoModelForSequenceClassification.register(
    LatentTreeConfig, (LatentTreeForSequenceClassification, LatentTreeForPairClassification)
)
AutoModelForTokenClassification.register(LatentTreeConfig, LatentTreeForTokenClassification)

# Saved models carry the file of the module that their class names: not the one that defines it, of which a copy would define
# another class of that name, but one that finds it (see there).
for _class, _auto_class in (
    (BiLstmConfig, "AutoConfig"),
    (BiLstmModel, "AutoModel"),
    (LatentTreeConfig, "AutoConfig"),
    (LatentTreeModel, "AutoModel"),
    (LatentTreeForPairClassification, "AutoModelForSequenceClassification"),
    (LatentTreeForSequenceClassification, "AutoModelForSequenceClassification"),
    (LatentTreeForTokenClassification, "AutoModelForTokenClassification"),
):
    _class.__module__ = "hf_latent.modeling_hf_latent"
    _class.register_for_auto_class(_auto_class)  # type: ignore[attr-defined]

__all__ = [
    "BiLstmConfig",
    "BiLstmModel",
    "LatentTreeConfig",
    "LatentTreeForPairClassification",
    "LatentTreeForSequenceClassification",
    "LatentTreeForTokenClassification",
    "LatentTreeModel",
]
