"""A few steps of training with parameters sharded over the processes (FSDP2); without any, the same on one.

python -m torch.distributed.run --nproc_per_node 2 sharded_training.py ESTIMATOR FILE
"""

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import BertConfig, BertModel

from hf_latent import LatentTreeForSequenceClassification, LatentTreeLayer

TOKENS, LENGTH, BATCH = 30, 8, 4


def main() -> None:
    estimator, file = sys.argv[1:]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = LatentTreeForSequenceClassification.from_encoder(BertModel(config), num_labels=2, estimator=estimator)
    if processes > 1:
        dist.init_process_group("gloo")
        mesh = dist.device_mesh.init_device_mesh("cpu", (processes,))
        # What accelerate wraps by default: the modules that the model says are not to be split, then the whole.
        for module in list(model.modules()):
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert isinstance(model.get_parameter("latent_tree.tree.scorer.bilinear"), DTensor)
        assert any(isinstance(module, LatentTreeLayer) for module in model.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for _ in range(4):
        ids = torch.randint(5, TOKENS, (BATCH, LENGTH))
        labels = torch.randint(2, (BATCH,))
        own = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
        word_ids = torch.arange(LENGTH).expand(BATCH, -1)
        model(input_ids=ids[own], word_ids=word_ids[own], labels=labels[own]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = {
        name: parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        for name, parameter in model.named_parameters()
    }
    if rank == 0:
        torch.save({name: weight.detach().clone() for name, weight in weights.items()}, file)
    if processes > 1:
        dist.destroy_process_group()
        # Not the interpreter's own end: Gloo's threads may still be giving back tensors that Python knows, for which they need
        # an interpreter that has not begun to end (torch 2.13 aborts the process).
        os._exit(0)


if __name__ == "__main__":
    main()
