"""The file that a saved model carries with it, so that it loads where nobody has imported hf_latent.

`save_pretrained` copies this file, and `from_pretrained(..., trust_remote_code=True)` runs it. It finds the classes in the
installed package, and so needs `pip install hf_latent`.
"""

from hf_latent.models import *
from hf_latent.models.registry import exported_names

__all__ = exported_names()
