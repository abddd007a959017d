"""A config is honoured whole or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.errors import ModelError
from difftrace.models.config import LLaDAConfig

# config.json of GSAI-ML/LLaDA-8B-Instruct, as facts: every key it holds.
PUBLISHED_8B: dict[str, Any] = {
    "_name_or_path": "LLaDA-8B-Instruct",
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModel": "modeling_llada.LLaDAModelLM"},
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 4096,
    "embedding_dropout": 0.0,
    "embedding_size": 126464,
    "eos_token_id": 126081,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": 126336,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 12288,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "pad_token_id": 126081,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "transformers_version": "4.46.3",
    "use_cache": False,
    "vocab_size": 126464,
    "weight_tying": False,
}


def test_the_published_8b_config_is_read_whole() -> None:
    config = LLaDAConfig.from_json(PUBLISHED_8B)
    assert (config.d_model, config.n_layers, config.n_heads, config.n_kv_heads) == (4096, 32, 32, 32)
    assert (config.head_dim, config.mlp_hidden_size, config.max_sequence_length) == (128, 12288, 4096)
    assert (config.vocab_size, config.embedding_size) == (126464, 126464)
    assert (config.rope_theta, config.rms_norm_eps) == (500000.0, 1e-5)
    assert (config.mask_token_id, config.eos_token_id, config.pad_token_id) == (126336, 126081, 126081)
    assert config.eot_token_id is None


UNSUPPORTED = {
    "activation_type": "gelu",
    "alibi": True,
    "attention_dropout": 0.1,
    "attention_layer_norm": True,
    "bias_for_layer_norm": True,
    "block_group_size": 2,
    "block_type": "sequential",
    "clip_qkv": 8.0,
    "embedding_dropout": 0.1,
    "flash_attention": True,
    "include_bias": True,
    "include_qkv_bias": True,
    "input_emb_norm": True,
    "layer_norm_type": "default",
    "layer_norm_with_affine": False,
    "quantization": "int8",
    "quantization_config": {"bits": 4},
    "residual_dropout": 0.1,
    "rope": False,
    "rope_full_precision": False,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "scale_logits": True,
    "weight_tying": True,
    "model_type": "llama",
    "sliding_window": 128,
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_a_setting_that_would_be_ignored_is_refused_by_name_and_value(key: str) -> None:
    with pytest.raises(ModelError) as raised:
        LLaDAConfig.from_json({**PUBLISHED_8B, key: UNSUPPORTED[key]}, "folder/config.json")
    message = str(raised.value)
    assert message.startswith("folder/config.json: ")
    assert key in message
    assert repr(UNSUPPORTED[key]) in message
    assert "\n" not in message


def test_all_problems_are_named_in_one_error(tiny_values: dict[str, Any]) -> None:
    del tiny_values["d_model"]
    tiny_values.update(alibi=True, scale_logits=True, unheard_of="x")
    with pytest.raises(ModelError) as raised:
        LLaDAConfig.from_json(tiny_values)
    for name in ("d_model is missing", "alibi=True", "scale_logits=True", "unheard_of='x'"):
        assert name in str(raised.value)


@pytest.mark.parametrize(
    "key",
    [
        "d_model",
        "n_layers",
        "n_heads",
        "vocab_size",
        "max_sequence_length",
        "rope_theta",
        "rms_norm_eps",
        "mask_token_id",
        "eos_token_id",
        "activation_type",
        "block_type",
        "layer_norm_type",
        "rope",
    ],
)
def test_a_missing_setting_is_named_rather_than_guessed(tiny_values: dict[str, Any], key: str) -> None:
    del tiny_values[key]
    with pytest.raises(ModelError, match=f"{key} is missing"):
        LLaDAConfig.from_json(tiny_values)


@pytest.mark.parametrize("empty", [None, False, {}, []])
def test_an_unknown_key_that_says_nothing_is_no_obstacle(tiny_values: dict[str, Any], empty: object) -> None:
    assert LLaDAConfig.from_json({**tiny_values, "output_attentions": empty}) == LLaDAConfig.from_json(tiny_values)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("d_model", 0, "d_model must be a positive integer"),
        ("d_model", "16", "d_model must be a positive integer"),
        ("n_heads", True, "n_heads must be a positive integer"),
        ("n_heads", 5, "must be n_heads 5 x an even head size"),
        ("d_model", 20, "must be n_heads 4 x an even head size"),
        ("n_kv_heads", 3, "no multiple of n_kv_heads 3"),
        ("n_kv_heads", 0, "n_kv_heads must be a positive integer"),
        ("rope_theta", "large", "rope_theta must be a positive number"),
        ("rope_theta", 0, "rope_theta must be a positive number"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps must be a positive number"),
        ("embedding_size", 39, "embedding_size 39 is smaller than vocab_size 40"),
        ("mask_token_id", 48, "mask_token_id 48 is no id below 48"),
        ("mask_token_id", -1, "mask_token_id -1 is no id"),
        ("eos_token_id", "</s>", "eos_token_id '</s>' is no id"),
        ("pad_token_id", 1.0, "pad_token_id 1.0 is no id"),
        ("eot_token_id", 99, "eot_token_id 99 is no id"),
        ("multi_query_attention", True, "multi_query_attention and n_kv_heads contradict"),
    ],
)
def test_a_value_that_makes_no_model_is_refused(
    tiny_values: dict[str, Any], key: str, value: object, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        LLaDAConfig.from_json({**tiny_values, key: value})


def test_what_a_config_may_leave_out_has_the_published_meaning(tiny_values: dict[str, Any]) -> None:
    for key in ("n_kv_heads", "embedding_size", "mlp_hidden_size", "pad_token_id"):
        del tiny_values[key]
    config = LLaDAConfig.from_json({**tiny_values, "mlp_ratio": 3})
    assert (config.n_kv_heads, config.embedding_size, config.mlp_hidden_size) == (4, 40, 48)
    assert config.pad_token_id == config.eos_token_id
    assert LLaDAConfig.from_json({**tiny_values, "mlp_ratio": 3, "multi_query_attention": True}).n_kv_heads == 1


def test_null_means_left_out(tiny_values: dict[str, Any]) -> None:
    config = LLaDAConfig.from_json({**tiny_values, "n_kv_heads": None, "embedding_size": None, "pad_token_id": None})
    assert (config.n_kv_heads, config.embedding_size, config.pad_token_id) == (4, 40, 38)


def test_a_config_without_a_feed_forward_width_is_refused(tiny_values: dict[str, Any]) -> None:
    del tiny_values["mlp_hidden_size"]
    with pytest.raises(ModelError, match="mlp_ratio must be a positive integer"):
        LLaDAConfig.from_json(tiny_values)


def test_what_is_written_reads_back_equal(tiny_values: dict[str, Any]) -> None:
    config = LLaDAConfig.from_json({**tiny_values, "eot_token_id": 37})
    assert LLaDAConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_config_file_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    absent = tmp_path / "config.json"
    with pytest.raises(ModelError, match=r"config\.json: cannot read the model's config: No such file"):
        LLaDAConfig.from_file(absent)
    absent.write_text("{ not json")
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON"):
        LLaDAConfig.from_file(absent)
    absent.write_text("[1]")
    with pytest.raises(ModelError, match="must hold a JSON object, holds list"):
        LLaDAConfig.from_file(absent)
