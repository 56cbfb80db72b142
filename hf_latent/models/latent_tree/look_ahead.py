"""Whether an encoder looks ahead: found by trying it, since no name or configuration tells of all."""

import torch
from transformers import PreTrainedModel

LENGTH = 8


@torch.no_grad()
def looks_ahead(encoder: PreTrainedModel) -> bool:
    """Whether the vectors of tokens depend on tokens after them; taken to be so of a model without weights (meta device)."""
    embeddings = encoder.get_input_embeddings()
    weight = next(embeddings.parameters())
    if weight.is_meta:
        return True
    special = {value for name, value in encoder.config.to_dict().items() if name.endswith("_token_id")}
    size = embeddings.num_embeddings
    plain = [index for index in range(min(size, len(special) + 2)) if index not in special] or [0]
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        outputs = []
        for last in (plain[0], plain[-1]):
            input_ids = torch.full((1, LENGTH), plain[0], device=weight.device)
            input_ids[0, -1] = last
            outputs.append(encoder(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).last_hidden_state)
    finally:
        for module, training in modes.items():
            module.training = training
    return not torch.equal(outputs[0][:, :-1], outputs[1][:, :-1])
