"""Encoders and models of the Hugging Face kind; importing this makes them known to the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from hf_latent.models.bilstm import BiLstmConfig, BiLstmModel
from hf_latent.models.latent_tree import LatentTreeConfig, LatentTreeForSequenceClassification, LatentTreeModel

AutoConfig.register("bilstm", BiLstmConfig)
AutoModel.register(BiLstmConfig, BiLstmModel)
AutoConfig.register("latent_tree", LatentTreeConfig)
AutoModel.register(LatentTreeConfig, LatentTreeModel)
AutoModelForSequenceClassification.register(LatentTreeConfig, LatentTreeForSequenceClassification)

__all__ = ["BiLstmConfig", "BiLstmModel", "LatentTreeConfig", "LatentTreeForSequenceClassification", "LatentTreeModel"]
