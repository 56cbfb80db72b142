"""What stands below the words: any model of transformers that reads text. How it is made, what it must do, how it is called."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from hf_latent.inference.checks import is_eager
from hf_latent.models.words.configuration_words import WordsConfig

# What a trial on a short text does not show.
REFUSED = {
    "canine": "it reads characters, and pools them with padding",
    "convbert": "its convolutions reach from words into padding",
    "funnel": "it pools neighbouring tokens, and padding with them",
    "mobilebert": "its embeddings reach from the last word into padding",
    "mra": "it approximates attention by blocks of the padded row",
    "nystromformer": "it approximates attention by landmarks of the padded row",
    "reformer": "it approximates attention by hashing within chunks of the padded row",
    "yoso": "it approximates attention by random hashing",
}
# The names of what has a row for each position, be it a module or a buffer.
POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "positions_embed", "wpe", "pos_encoding")
# Where the configuration alone tells.
OTHER_LIMITS = {"mpt": "max_seq_len", "tipsv2_text_model": "max_position_embeddings"}


class NoPooler(nn.Module):
    """In the place of a pooler, which would be parameters without a gradient. (Some encoders call theirs in any case.)"""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    def _load_from_state_dict(self, *_: Any) -> None:
        """Passes over the weights of the pooler that was here."""


def new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The encoder of this configuration; of models with an encoder and a decoder (T5), the former alone.

    Raises:
        ValueError: a type of model that cannot be the encoder.
    """
    _check_model_type(config)
    if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        config.is_encoder_decoder = False
        return _without_pooler(AutoModelForTextEncoding.from_config(config))
    return _without_pooler(AutoModel.from_config(config))


def _check_model_type(config: PreTrainedConfig) -> None:
    """Raises for what no trial on a short text shows."""
    refused = f"`encoder` cannot be of type {config.model_type!r}: "
    if config.is_encoder_decoder and type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise ValueError(
            f"`encoder` must be an encoder, but {config.model_type!r} is an encoder-decoder whose encoder transformers cannot "
            "load by itself. Choose an encoder such as BERT, DeBERTa or T5."
        )
    if config.model_type in REFUSED:
        raise ValueError(f"{refused}{REFUSED[config.model_type]}. A text would come out different in a batch.")
    if getattr(config, "attention_type", None) == "block_sparse":
        raise ValueError(
            f'{refused}its sparse attention depends on the padded row. Load it with `attention_type="original_full"`.'
        )


def as_loaded(encoder: PreTrainedModel) -> PreTrainedModel:
    """The encoder as the class that a saved model will be loaded with: of T5Model, the encoder. Nothing is copied.

    Raises:
        ValueError: a type of model that cannot be the encoder.
    """
    if isinstance(encoder.config, WordsConfig):
        raise ValueError(
            f"`encoder` is a model of hf_latent already (a {encoder.config.model_type!r}): load it with `from_pretrained`."
        )
    if not isinstance(encoder, _classes(encoder.config)):
        encoder = encoder.base_model
    if encoder.config.is_encoder_decoder:
        with torch.device("meta"):
            loaded = new_encoder(copy.deepcopy(encoder.config))
        for name, part in list(loaded.named_children()):
            if type(getattr(encoder, name, None)) is not type(part):
                raise ValueError(
                    f"`encoder` must be a {type(loaded).__name__}, as which {encoder.config.model_type!r} models are loaded; "
                    f"a {type(encoder).__name__} lacks {name!r}."
                )
            setattr(loaded, name, getattr(encoder, name))
        loaded.hf_quantizer = getattr(encoder, "hf_quantizer", None)
        encoder = loaded
    for module in encoder.modules():
        module._is_hf_initialized = True  # type: ignore[assignment]  # or the model around it would draw new weights
    return _without_pooler(encoder)


def _classes(config: PreTrainedConfig) -> tuple[type, ...]:
    """The classes that saved models of this configuration are loaded as; none for code that transformers does not know."""
    mapping = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    known = mapping._model_mapping.get(type(config), ())
    return known if isinstance(known, tuple) else (known,)


def comes_back(encoder_class: type, config: PreTrainedConfig) -> bool:
    """Whether what is saved with this encoder is loaded with it, and not with another or not at all."""
    known = config.model_type in CONFIG_MAPPING and CONFIG_MAPPING[config.model_type] is type(config)
    return known and encoder_class in _classes(config)


def _without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = NoPooler()
    return encoder


def longest_text(encoder: PreTrainedModel) -> int | None:
    """The number of tokens that the encoder has positions for; None where there is no limit."""
    config, limits = encoder.config, []
    for name, table in (*encoder.named_modules(), *encoder.named_buffers()):
        rows = table if isinstance(table, Tensor) else getattr(table, "weight", None)
        if name.rsplit(".")[-1] in POSITION_TABLES and rows is not None:
            number = len(rows) if rows.dim() == 2 else table.num_embeddings  # else they are sharded, and not here now
            # RoBERTa and its like leave the positions up to that of the padding unused.
            padding = getattr(table, "padding_idx", None)
            limits.append(number - getattr(table, "offset", 0 if padding is None else padding + 1))
    if config.model_type in OTHER_LIMITS:
        limits.append(getattr(config, OTHER_LIMITS[config.model_type]))
    # Beyond these, the longest text of a batch would change how positions of all others are told.
    rope = getattr(config, "rope_parameters", None) or {}
    for one in (rope, *rope.values()):
        if isinstance(one, dict) and one.get("rope_type") in ("dynamic", "longrope"):
            limits.append(one.get("original_max_position_embeddings") or config.max_position_embeddings)
    return min(limits, default=None)


def _with_a_token(inputs: dict[str, Any], shape: torch.Size) -> dict[str, Any]:
    """The inputs of rows without tokens, with one token added to each row."""
    inputs = {
        name: pad(value, (*(0, 0) * (value.dim() - 2), 0, 1)) if _is_of_tokens(value, shape) else value
        for name, value in inputs.items()
    }
    if "input_ids" in inputs:
        inputs["input_ids"] = inputs["input_ids"].long()  # where no text has a token, tokenizers return floats
    return inputs


def encode(encoder: PreTrainedModel, attention_mask: Tensor | None, **inputs: Any) -> BaseModelOutput:
    """What the encoder makes of each text by itself, wherever its padding stands.

    It is given the tokens of each row first and padding behind them, which all encoders can take: positions count from the
    first token, and encoders that only look back never see padding. A row without a token is given one, so that there is
    something to look at. What comes out is in the order of what came in.

    Args:
        attention_mask: `(batch, tokens)`, 0 at padding, on whichever side; or another that the encoder takes.
        **inputs: `input_ids` or `inputs_embeds`, and whatever else the encoder takes; None stands for what is not given.

    Raises:
        ValueError: a text of more tokens than the encoder has positions for, or an input that it does not take.
    """
    inputs = {name: value for name, value in inputs.items() if value is not None}
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError("Pass either `input_ids` or `inputs_embeds` (one of them, not both).")
    tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    _check_length(encoder, tokens.shape[1])
    inputs = _taken(encoder, inputs)
    shape = tokens.shape[:2]
    if "position_ids" in inputs and inputs["position_ids"].shape == (1, shape[1]):
        inputs["position_ids"] = inputs["position_ids"].expand(shape)
    if attention_mask is not None:
        inputs["attention_mask"] = attention_mask
    if shape[1] == 0:
        inputs = _with_a_token(inputs, shape)
    back = None
    if attention_mask is not None and attention_mask.shape == shape:
        mask = inputs["attention_mask"]
        order = (mask == 0).long().argsort(dim=1, stable=True)
        if not (is_eager() and bool((order.diff(dim=1) > 0).all())):
            back = order.argsort(dim=1)
            inputs = {name: _reorder(own, order) if _is_of_tokens(own, shape) else own for name, own in inputs.items()}
            mask = inputs["attention_mask"]
        first = torch.ones_like(mask[:, :1]).where(mask[:, :1] == 0, mask[:, :1])
        inputs["attention_mask"] = torch.cat([first, mask[:, 1:]], dim=1)
    output = encoder(**inputs, return_dict=True)
    if "last_hidden_state" not in output:
        raise ValueError(f"`encoder` ({type(encoder).__name__}) gives no vector of each token: no `last_hidden_state`.")

    def put_back(value: Any, *dims: int) -> Any:
        """A tensor with its dimensions of tokens as they came in; what has no such dimensions stays as it is."""
        for dim in dims:
            if isinstance(value, Tensor) and value.shape[:1] == shape[:1] and value.shape[dim:][:1] == (max(shape[1], 1),):
                if back is not None:
                    value = _reorder(value.transpose(1, dim), back).transpose(1, dim)
                elif not shape[1]:
                    value = value.narrow(dim, 0, 0)
        return value

    def put_all_back(values: tuple[Any, ...] | None, *dims: int) -> tuple[Any, ...] | None:
        return None if values is None else tuple(put_back(value, *dims) for value in values)

    return BaseModelOutput(
        last_hidden_state=put_back(output.last_hidden_state, 1),
        hidden_states=put_all_back(output.get("hidden_states"), 1),
        attentions=put_all_back(output.get("attentions"), 2, 3),
    )


def _check_length(encoder: PreTrainedModel, length: int) -> None:
    """Raises where there are more tokens than the encoder has positions for, which would end in an index error."""
    most = longest_text(encoder)
    if most is not None and length > most:
        raise ValueError(
            f"The text has {length} tokens, and the encoder has positions for {most}. Cut it with "
            f"`tokenizer(..., truncation=True, max_length={most})`."
        )


def _taken(encoder: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that the encoder takes. It need not tell sentences apart; all else that is given must count."""
    taken = signature(encoder.forward).parameters
    inputs = {name: value for name, value in inputs.items() if name in taken or name != "token_type_ids"}
    for name in ("inputs_embeds", "position_ids"):
        if name in inputs and name not in taken:
            raise ValueError(f"`{name}` were given, but the encoder ({encoder.config.model_type!r}) does not take them.")
    if "use_cache" in taken:
        inputs["use_cache"] = False  # nothing is generated
    return inputs


def _is_of_tokens(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape[:2] == shape


def _reorder(value: Tensor, order: Tensor) -> Tensor:
    """`value (batch, tokens, ...)` with its tokens in another order."""
    return value.gather(1, order.view(*order.shape, *(1,) * (value.dim() - 2)).expand(*order.shape, *value.shape[2:]))


@contextmanager
def on_trial(encoder: PreTrainedModel) -> Iterator[None]:
    """The encoder as it evaluates, without gradients; after it, nothing of it has changed, nor of the random numbers.

    Linear layers that are quantized go on as in training, where they do the same: evaluation packs those of 4 bits for good
    on some processors, and then no gradient passes through them.
    """
    modes = {module: module.training for module in encoder.modules()}
    for module in modes:
        module.training = isinstance(module, nn.Linear) and not module.weight.is_floating_point()
    devices = {parameter.device for parameter in encoder.parameters() if parameter.is_cuda}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def output_size(encoder: PreTrainedModel) -> int | None:
    """The size of what the encoder makes of a token, found on trial: whether padding changes it is found as well.

    None where it cannot be tried: weights that are elsewhere.

    Raises:
        ValueError: an encoder that does not do, and why.
    """
    _check_model_type(encoder.config)
    refused = f"`encoder` cannot be a {type(encoder).__name__} ({encoder.config.model_type!r}): "
    try:
        embeddings = encoder.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        raise ValueError(f"{refused}it has no table of token embeddings.") from None
    if any(parameter.is_meta or not parameter.numel() for parameter in encoder.parameters()):
        return None
    length = min(longest_text(encoder) or 8, 8)
    padding = getattr(encoder.config, "pad_token_id", None)
    known = [index for index in range(min(len(embeddings), length + 1)) if index != padding]
    longer = torch.tensor([(known * length)[:length]], device=embeddings.device)
    text = longer[:, : length - 2]
    mask = torch.ones_like(longer)
    mask[:, length - 2 :] = 0
    padded = longer.masked_fill(mask == 0, 0 if padding is None else padding)
    try:
        with on_trial(encoder):
            alone = encode(encoder, torch.ones_like(text), input_ids=text).last_hidden_state
            both = torch.cat([padded, longer]), torch.cat([mask, torch.ones_like(mask)])
            in_batch = encode(encoder, both[1], input_ids=both[0]).last_hidden_state[:1, : length - 2]
    except Exception as error:
        raise ValueError(f"{refused}called with tokens alone it raises {type(error).__name__}: {error}") from error
    if alone.shape[:2] != text.shape:
        raise ValueError(f"{refused}it makes {tuple(alone.shape)} of {tuple(text.shape)} tokens, and not a vector of each.")
    far = torch.linalg.vector_norm((in_batch - alone).float()) / torch.linalg.vector_norm(alone.float())
    exact = all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    if far > (0.01 if exact else 0.1):
        raise ValueError(f"{refused}padding changes what it makes of a text (by {100 * float(far):.1f} %).")
    return alone.shape[2]
