"""A few steps of training on gold heads alone, in as many processes as there are (DDP), each with its share of the batch.

python -m torch.distributed.run --nproc_per_node 2 heads_in_processes.py FILE
"""

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertModel

from hf_latent import LatentTreeForSequenceClassification, LatentTreeModel

HEADS = torch.tensor([[0, 1, 2, 3, 4], [2, 0, 2, 3, 4], [5, 5, 5, 5, 0], [0, 0, 0, 0, 0]])


def trained_weights() -> dict[str, torch.Tensor]:
    """Of both kinds of models, without and with gradient checkpointing."""
    weights = {}
    for model_class in (LatentTreeModel, LatentTreeForSequenceClassification):
        for checkpointing in (False, True):
            torch.manual_seed(0)
            config = BertConfig(
                vocab_size=30,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=8,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            model = model_class.from_encoder(BertModel(config), estimator="marginals").train()
            if checkpointing:
                model.gradient_checkpointing_enable()
            wrapped = DistributedDataParallel(model) if dist.is_initialized() else model
            own = slice(dist.get_rank(), None, dist.get_world_size()) if dist.is_initialized() else slice(None)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(3):
                ids, word_ids = torch.randint(5, 30, HEADS.shape), torch.arange(5).expand(4, -1)
                wrapped(input_ids=ids[own], word_ids=word_ids[own], heads=HEADS[own]).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            name = f"{model_class.__name__}{' with checkpointing' if checkpointing else ''}"
            weights |= {f"{name}: {key}": value.detach().clone() for key, value in model.named_parameters()}
    return weights


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    found = trained_weights()
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    if dist.is_initialized():
        dist.destroy_process_group()
