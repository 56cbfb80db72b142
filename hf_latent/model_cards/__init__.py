"""A model card from a model and its training run."""

from hf_latent.model_cards.card import model_card
from hf_latent.model_cards.facts import CardFacts
from hf_latent.model_cards.writing import ModelCardCallback, write_model_card

__all__ = ["CardFacts", "ModelCardCallback", "model_card", "write_model_card"]
