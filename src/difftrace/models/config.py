"""The published LLaDA configuration, reduced to what decides the mathematics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from difftrace.core.errors import ModelError

# Values of the published config that change the mathematics and for which only one value is implemented.
# A checkpoint that says otherwise would compute something else here, so it is refused.
_ONLY: dict[str, tuple[Any, ...]] = {
    "activation_type": ("silu",),
    "alibi": (False, None),
    "attention_layer_norm": (False, None),
    "bias_for_layer_norm": (False, None),
    "block_group_size": (1, None),
    "block_type": ("llama",),
    "clip_qkv": (None,),
    "flash_attention": (False, None),
    "include_bias": (False, None),
    "include_qkv_bias": (False, None),
    "input_emb_norm": (False, None),
    "layer_norm_type": ("rms",),
    "layer_norm_with_affine": (True,),
    "quantization": (None,),
    "quantization_config": (None,),
    "rope": (True,),
    "rope_full_precision": (True, None),
    "rope_scaling": (None,),
    "scale_logits": (False, None),
    "weight_tying": (False, None),
}
_REQUIRED_ONLY = ("activation_type", "block_type", "layer_norm_type", "rope")

# Active in training only; a value other than zero would be ignored here, hence refused.
_ZERO = ("attention_dropout", "embedding_dropout", "residual_dropout")

# Known to change nothing in a forward pass of a trained model.
_HARMLESS = frozenset(
    {
        "_name_or_path",
        "alibi_bias_max",
        "architectures",
        "attention_layer_norm_with_affine",
        "auto_map",
        "bos_token_id",
        "dtype",
        "init_cutoff_factor",
        "init_device",
        "init_fn",
        "init_std",
        "model_type",
        "precision",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
# Housekeeping that transformers may have written into any config.json.
_HOUSEKEEPING_WHEN_EMPTY: tuple[Any, ...] = (None, False, {}, [])


@dataclass(frozen=True)
class LLaDAConfig:
    """Shapes and ids of a LLaDA model; field names are the published config's.

    Ids: `mask_token_id`, `eos_token_id`, `pad_token_id`, and `eot_token_id` where the end-of-turn token is
    known (the published config leaves it to the tokenizer).
    Source: config.json of GSAI-ML/LLaDA-8B-Instruct and the published modelling file.
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    mlp_hidden_size: int
    vocab_size: int
    embedding_size: int
    max_sequence_length: int
    rope_theta: float
    rms_norm_eps: float
    mask_token_id: int
    eos_token_id: int
    pad_token_id: int
    eot_token_id: int | None = None

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    def with_eot(self, eot_token_id: int) -> LLaDAConfig:
        """Return the same config with the end-of-turn id that the tokenizer knows; ModelError if it is out of range."""
        config = replace(self, eot_token_id=eot_token_id)
        config._check("tokenizer")
        return config

    def to_json(self) -> dict[str, Any]:
        """Return the config as the published config.json would state it."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        fixed = {key: allowed[0] for key, allowed in _ONLY.items() if allowed[0] is not None}
        return {"model_type": "llada", "architectures": ["LLaDAModelLM"], **fixed, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "config") -> LLaDAConfig:
        """Read the published config.

        Raises ModelError naming every value this implementation does not honour, every key it does not know
        and every key it misses: a setting is never ignored.
        """
        problems = list(_unsupported(values)) + list(_missing(values))
        if problems:
            raise ModelError(f"{source}: cannot run this model natively: " + "; ".join(problems))
        heads = _positive(values, "n_heads", source)
        width = _positive(values, "d_model", source)
        kv_heads = values.get("n_kv_heads")
        if kv_heads is None:
            kv_heads = 1 if values.get("multi_query_attention") else heads
        hidden = values.get("mlp_hidden_size")
        config = cls(
            d_model=width,
            n_layers=_positive(values, "n_layers", source),
            n_heads=heads,
            n_kv_heads=_positive({"n_kv_heads": kv_heads}, "n_kv_heads", source),
            # The published block halves an ungated width; gated blocks are published with mlp_hidden_size.
            mlp_hidden_size=_positive(values, "mlp_hidden_size", source)
            if hidden is not None
            else width * _positive(values, "mlp_ratio", source),
            vocab_size=_positive(values, "vocab_size", source),
            embedding_size=_positive(values, "embedding_size", source)
            if values.get("embedding_size")
            else _positive(values, "vocab_size", source),
            max_sequence_length=_positive(values, "max_sequence_length", source),
            rope_theta=_number(values, "rope_theta", source),
            rms_norm_eps=_number(values, "rms_norm_eps", source),
            mask_token_id=values["mask_token_id"],
            eos_token_id=values["eos_token_id"],
            pad_token_id=values["eos_token_id"] if values.get("pad_token_id") is None else values["pad_token_id"],
            eot_token_id=values.get("eot_token_id"),
        )
        config._check(source)
        return config

    @classmethod
    def from_file(cls, path: Path) -> LLaDAConfig:
        """Read `config.json`; ModelError if it is absent, no JSON, or not supported."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelError(f"{path}: cannot read the model's config: {error.strerror}") from error
        except ValueError as error:
            raise ModelError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path}: must hold a JSON object, holds {type(values).__name__}")
        return cls.from_json(values, str(path))

    def _check(self, source: str) -> None:
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ModelError(f"{source}: d_model {self.d_model} must be n_heads {self.n_heads} x an even head size")
        if self.n_heads % self.n_kv_heads:
            raise ModelError(f"{source}: n_heads {self.n_heads} is no multiple of n_kv_heads {self.n_kv_heads}")
        if self.embedding_size < self.vocab_size:
            raise ModelError(
                f"{source}: embedding_size {self.embedding_size} is smaller than vocab_size {self.vocab_size}"
            )
        for name in ("mask_token_id", "eos_token_id", "pad_token_id", "eot_token_id"):
            value = getattr(self, name)
            if value is None and name == "eot_token_id":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < self.embedding_size:
                raise ModelError(f"{source}: {name} {value!r} is no id below {self.embedding_size}")


def _positive(values: Mapping[str, Any], key: str, source: str) -> int:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{source}: {key} must be a positive integer, is {value!r}")
    return value


def _number(values: Mapping[str, Any], key: str, source: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ModelError(f"{source}: {key} must be a positive number, is {value!r}")
    return float(value)


def _unsupported(values: Mapping[str, Any]) -> list[str]:
    problems = []
    kind = values.get("model_type", "llada")
    if kind != "llada":
        problems.append(f"model_type {kind!r} is not 'llada'")
    for key, allowed in _ONLY.items():
        if key in values and values[key] not in allowed:
            problems.append(f"{key}={values[key]!r} is not supported (only {allowed[0]!r})")
    problems += [f"{key}={values[key]!r} is not supported (only 0)" for key in _ZERO if values.get(key)]
    if values.get("multi_query_attention") and values.get("n_kv_heads") not in (None, 1):
        problems.append("multi_query_attention and n_kv_heads contradict each other")
    known = {*_ONLY, *_ZERO, *_HARMLESS, *_FIELDS, "mlp_ratio", "multi_query_attention"}
    for key in sorted(set(values) - known):
        # Keys that say nothing cannot change anything; keys that say something could.
        if values[key] not in _HOUSEKEEPING_WHEN_EMPTY:
            problems.append(f"{key}={values[key]!r} is not a setting this implementation knows")
    return problems


def _missing(values: Mapping[str, Any]) -> list[str]:
    needed = [*_NEEDED, *_REQUIRED_ONLY]
    return [f"{key} is missing" for key in needed if values.get(key) is None]


_FIELDS = tuple(LLaDAConfig.__dataclass_fields__)
_NEEDED = (
    "d_model",
    "n_layers",
    "n_heads",
    "vocab_size",
    "max_sequence_length",
    "rope_theta",
    "rms_norm_eps",
    "mask_token_id",
    "eos_token_id",
)
