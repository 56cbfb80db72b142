"""A tiny encoder of every kind of text model that the installed transformers has."""

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# Whichever of these a configuration has, by their value.
NAMES = {
    0: "pad_token_id",
    1: "unk_token_id n_group topk_group num_expert_group n_shared_experts num_shared_experts",
    2: "bos_token_id cls_token_id type_vocab_size index_n_heads num_hidden_layers num_layers n_layer n_layers num_blocks "
    "encoder_layers decoder_layers num_encoder_layers num_decoder_layers "
    "num_experts_per_tok num_experts_per_token moe_topk moe_k",
    3: "eos_token_id sep_token_id",
    4: "mask_token_id num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads "
    "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads num_kv_heads num_key_value_heads "
    "num_experts n_routed_experts num_local_experts moe_num_experts zero_expert_num "
    "mamba_n_heads mamba_num_heads mamba_dt_rank time_step_rank linear_num_key_heads linear_num_value_heads linear_num_heads",
    8: "head_dim d_kv d_head kv_channels attention_head_size qk_rope_head_dim qk_nope_head_dim v_head_dim "
    "mamba_d_state state_size ssm_state_size linear_key_head_dim linear_value_head_dim linear_head_dim",
    16: "vocab_size vocab_size_per_layer_input kv_lora_rank q_lora_rank o_lora_rank index_head_dim index_topk qk_head_dim "
    "mamba_d_head mamba_head_dim",
    24: "embedding_size input_embedding_size",
    32: "hidden_size d_model n_embd dim emb_dim embedding_dim word_embed_proj_dim",
    40: "intermediate_size d_ff d_inner hidden_dim ffn_dim encoder_ffn_dim decoder_ffn_dim dim_ff dff moe_intermediate_size "
    "shared_expert_intermediate_size feed_forward_size ffn_hidden_size expert_ffn_hidden_size shared_intermediate_size "
    "intermediate_size_mlp moe_hidden_size moe_shared_expert_intermediate_size shared_experts_intermediate_size "
    "max_position_embeddings n_positions max_seq_len context_length",
}
SIZES = {name: value for value, names in NAMES.items() for name in names.split()}
# What some kinds need besides.
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MROPE = ROPE | {"mrope_section": [1, 1, 2]}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_ssm": 64}
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
SPECIAL = {
    "bailing_hybrid": LINEAR,
    "bamba": {"attn_layer_indices": [1]} | MAMBA,
    "clip_text_model": {"projection_dim": 8},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    },
    "cosmos3_edge_text": {"rope_parameters": MROPE},
    "dbrx": {
        "attn_config": {"kv_n_heads": 4, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 40, "hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "falcon_h1": MAMBA,
    "funnel": {"architectures": ["FunnelModel"], "block_sizes": [1, 1], "block_repeats": [1, 1]},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "glm4v_text": {"rope_parameters": MROPE, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    "glm4v_moe_text": {"rope_parameters": MROPE, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    "glm_image_text": {"rope_parameters": MROPE, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    "glm_ocr_text": {"rope_parameters": MROPE, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    "glm5_next_text": {"qk_rope_head_dim": 0, "qk_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": LINEAR | MAMBA,
    "hunyuan_vl_text": {"rope_parameters": MROPE | {"rope_type": "default"}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": LINEAR,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "longcat_flash": {"head_dim": 8},
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 20,
        "max_xpath_subs_unit_embeddings": 20,
        "tag_pad_id": 12,
        "subs_pad_id": 16,
        "max_depth": 4,
        "xpath_unit_hidden_size": 8,
    },
    "mimo_v2_flash": {
        "num_key_value_heads": 2,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    "mistral4": {
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 40,
            "max_position_embeddings": 80,
            "llama_4_scaling_beta": 0.1,
        },
    },
    "nemotron_h": {"n_groups": 1, "mamba_num_heads": 4, "mamba_head_dim": 16},
    "qwen2_5_vl_text": {"rope_parameters": MROPE | {"mrope_section": [1, 1, 2]}},
    "qwen2_vl_text": {"rope_parameters": MROPE | {"mrope_section": [1, 1, 2]}},
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR,
    "qwen3_next": LINEAR,
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 2,
        "layer_types": ["linear_attention", "indexed_attention"],
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [5, 8],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 4,
    },
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8, "pronunciation_embed_dim": 8, "shape_embed_dim": 8},
    "squeezebert": {"embedding_size": 32},
    "t5gemma": {
        "encoder": {
            "vocab_size": 16,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "intermediate_size": 40,
        },
        "decoder": {
            "vocab_size": 16,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "intermediate_size": 40,
        },
    },
    "xlstm": {"embedding_dim": 32, "num_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "mamba_headdim": 16,
        "n_mamba_heads": 4,
        "mamba_ngroups": 1,
        "adapter_rank": 8,
    },
    "zaya": {"num_experts_per_tok": 1, "num_key_value_heads": 2},
}


def tiny_config(kind: str, **sizes: Any) -> PreTrainedConfig:
    """A configuration of this kind with small sizes."""
    config_class = CONFIG_MAPPING[kind]
    known = vars(config_class())
    general = {config_class.attribute_map.get(name, name): value for name, value in SIZES.items()}
    return config_class(**{name: value for name, value in general.items() if name in known} | SPECIAL.get(kind, {}) | sizes)


HEADS = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "TEXT_ENCODING", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")


def text_kinds() -> list[str]:
    """Those of `AutoModel`'s kinds that read tokens of text and nothing else.

    By transformers' own account: what the class says of its input; that there is a head for a task on text, or that it is the
    text part of a larger model; and that it is not made of models of other kinds.
    """
    with_head = {kind for head in HEADS for kind in getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES")}
    kinds = []
    for kind in modeling_auto.MODEL_MAPPING_NAMES:
        if kind not in with_head and not kind.endswith("_text"):
            continue
        try:
            config_class = CONFIG_MAPPING[kind]
            model_class = modeling_auto.MODEL_MAPPING[config_class]
        except ValueError:  # named there, and nowhere defined
            continue
        model_class = model_class[0] if isinstance(model_class, tuple) else model_class
        modalities = model_class.input_modalities
        stem = config_class.__name__.removesuffix("Config")
        if (
            model_class.main_input_name == "input_ids"
            and {"text"} == ({modalities} if isinstance(modalities, str) else set(modalities))
            and all(part.__name__.startswith(stem) for part in config_class.sub_configs.values())
        ):
            kinds.append(kind)
    return kinds
