"""Whether an encoder looks ahead: found by trying it, since neither names nor configurations tell of all."""

import torch
from transformers import PreTrainedModel

from hf_latent.models.words.encoders import encode, on_trial

LENGTH = 8


def looks_ahead(encoder: PreTrainedModel) -> bool:
    """Whether the vectors of tokens depend on what comes after them.

    Taken to be so of a model whose weights are not there yet (meta device), which cannot be tried.
    """
    embeddings = encoder.get_input_embeddings()
    device = next(embeddings.parameters()).device
    if device.type == "meta":
        if not hasattr(encoder, "hf_device_map"):
            return True
        device = torch.device("cpu")  # weights that are kept elsewhere come when they are needed
    common, other = _ordinary_tokens(encoder)
    vectors = []
    with on_trial(encoder):
        for last in (common, other):
            input_ids = torch.tensor([[common] * (LENGTH - 1) + [last]], device=device)
            vectors.append(encode(encoder, torch.ones_like(input_ids), input_ids=input_ids).last_hidden_state[:, :-1])
    return not torch.equal(*vectors)


def _ordinary_tokens(encoder: PreTrainedModel) -> list[int]:
    """Two tokens, if possible not special ones, which some encoders treat in ways of their own."""
    special: set[int] = set()
    for name, value in encoder.config.to_dict().items():
        if name.endswith("_token_id") and value is not None:
            special |= set(value) if isinstance(value, list) else {value}
    known = range(min(len(encoder.get_input_embeddings().weight), len(special) + 2))
    return sorted(known, key=special.__contains__)[:2]
