"""Encoders and models in the manner of transformers. Importing this makes them known to the Auto classes."""

from hf_latent.models.bilstm import *
from hf_latent.models.latent_tree import *
from hf_latent.models.registry import exported_names, register_model, registered_models
from hf_latent.models.selection import *
from hf_latent.models.spans import *

__all__ = [*exported_names(), "register_model", "registered_models"]
