"""An encoder of which the upper layers alone learn: a step takes a good part of the time, and much less memory."""

import torch
from transformers import PreTrainedModel


def learn_upper_layers(encoder: PreTrainedModel, frozen: int) -> None:
    """Keeps the embeddings and the first `frozen` layers as they are."""
    encoder.requires_grad_(False)
    layers = next(module for module in encoder.modules() if isinstance(module, torch.nn.ModuleList))
    layers[frozen:].requires_grad_(True)
