"""A Trainer that prints nothing and saves nothing: for many runs at once, of which each gives its figures."""

import tempfile
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
            output_dir=tempfile.gettempdir(),  # in which nothing is written
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
