"""Classifiers that show which words of a text they decide by."""

from hf_latent.models.selection.configuration_selection import *
from hf_latent.models.selection.modeling_selection import *
