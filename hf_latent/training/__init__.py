"""The recipe by which latent structures are found: for the stock Trainer, and any latent layer."""

from hf_latent.training.curriculum import length_curriculum
from hf_latent.training.parsing import encoder_parameter_groups, parsing_metrics
from hf_latent.training.parts import PartCallback, parameter_groups
from hf_latent.training.restarts import train_with_restarts
from hf_latent.training.schedules import ScheduleCallback, linear
from hf_latent.training.span_biases import SpanBiases, choose_span_biases

__all__ = [
    "PartCallback",
    "ScheduleCallback",
    "SpanBiases",
    "choose_span_biases",
    "encoder_parameter_groups",
    "length_curriculum",
    "linear",
    "parameter_groups",
    "parsing_metrics",
    "train_with_restarts",
]
