"""A Trainer that prints nothing and saves nothing: for many runs at once, of which each gives its figures."""

from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback


def quiet_trainer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, arguments: dict[str, Any], **options: Any
) -> Trainer:
    """The stock Trainer; `arguments` are fields of its `TrainingArguments`, the options its own."""
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir="unused",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **arguments,
        ),
        optimizers=(optimizer, None),
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer
