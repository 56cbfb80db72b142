"""Which layers of the encoder a token's vector comes from."""

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from hf_latent.layers import ScalarMix
from hf_latent.models.words.configuration_words import WordsConfig


def new_layer_mix(config: WordsConfig) -> ScalarMix | None:
    """Of as many layers as the configuration says; where it leaves that open, of all, which it says from then on.

    None where the last layer is taken as it is.

    Raises:
        ValueError: more layers than the encoder has.
    """
    there_are = max(getattr(config.text_config, "num_hidden_layers", None) or 1, 1)
    if config.num_mixed_layers is None:
        config.num_mixed_layers = there_are
    if config.num_mixed_layers > there_are:
        raise ValueError(f"`num_mixed_layers` is {config.num_mixed_layers}, but the encoder has {there_are}.")
    return ScalarMix(config.num_mixed_layers) if config.num_mixed_layers > 1 else None


def vectors_of_tokens(mix: ScalarMix | None, encoded: BaseModelOutput) -> Tensor:
    """`(batch, tokens, size)`, of the last layer or of the last ones, mixed.

    Raises:
        ValueError: an encoder that does not return its layers.
    """
    if mix is None:
        return encoded.last_hidden_state  # type: ignore[return-value]
    if encoded.hidden_states is None:
        raise ValueError("The encoder returns no `hidden_states`, of which some are to be mixed. Set `num_mixed_layers=1`.")
    mixed: Tensor = mix(encoded.hidden_states[-len(mix.weights) :])
    return mixed
