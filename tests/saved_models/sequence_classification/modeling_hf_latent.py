"""What a saved model carries with it, so that it loads where nobody has imported hf_latent.

`save_pretrained` copies this file, and `from_pretrained(..., trust_remote_code=True)` runs it: it needs
`pip install hf_latent`, and all that it does is to find the classes there.
"""

from hf_latent.models import (
    BiLstmConfig,
    BiLstmModel,
    LatentTreeConfig,
    LatentTreeForPairClassification,
    LatentTreeForSequenceClassification,
    LatentTreeForTokenClassification,
    LatentTreeModel,
)

__all__ = [
    "BiLstmConfig",
    "BiLstmModel",
    "LatentTreeConfig",
    "LatentTreeForPairClassification",
    "LatentTreeForSequenceClassification",
    "LatentTreeForTokenClassification",
    "LatentTreeModel",
]
