"""The old place of `hf_latent.structures.dependency_tree.conversions`."""

from hf_latent.moved import warn_of_old_name
from hf_latent.structures.dependency_tree.conversions import *  # noqa: F403

warn_of_old_name(__name__, "hf_latent.structures.dependency_tree.conversions")
