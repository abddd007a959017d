"""The models that benchmarks run: the embedded one, a folder's, or the 8B architecture with random weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import torch
from _harness import Scalar, describe_machine

from difftrace.determinism.devices import platform_key
from difftrace.models import LoadedModel, load_model
from difftrace.models.config import LLaDAConfig
from difftrace.models.llada import LLaDAModel
from difftrace.models.reference import reference_model_path
from difftrace.models.weights import Checkpoint

LLADA_8B: Final = LLaDAConfig(
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=32,
    mlp_hidden_size=12288,
    vocab_size=126464,
    embedding_size=126464,
    max_sequence_length=4096,
    rope_theta=500000.0,
    rms_norm_eps=1e-5,
    mask_token_id=126336,
    eos_token_id=126081,
    pad_token_id=126081,
)


def build(options: argparse.Namespace) -> LLaDAModel:
    """Return the model asked for, on its device."""
    return build_loaded(options).model


def build_loaded(options: argparse.Namespace) -> LoadedModel:
    """Return the same as `load_model` does; random weights have no checkpoint, so no identity."""
    dtype, device = getattr(torch, options.dtype), torch.device(options.device)
    folder = reference_model_path() if options.config == "reference" else Path(options.config)
    if options.init == "random":
        config = LLADA_8B if options.config == "llada-8b" else LLaDAConfig.from_file(folder / "config.json")
        model = _random(config, dtype, device)
        return LoadedModel(model, None, config, folder.name, None, folder, Checkpoint({}), dtype, device)
    if options.config == "llada-8b":
        raise SystemExit("llada-8b has no stored weights here: add --init random, or name a model folder")
    return load_model(folder, dtype=dtype, device=device)


def _random(config: LLaDAConfig, dtype: torch.dtype, device: torch.device) -> LLaDAModel:
    """Build the architecture with random weights, directly where and as it is to run: 8B fit nowhere twice."""
    with torch.device("meta"):
        model = LLaDAModel(config).to(dtype)
    model.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
    return model


def describe_device(device: torch.device) -> dict[str, Scalar]:
    """Return what the figures of a model on `device` depend on, with neither host name nor path."""
    return {
        **describe_machine(),
        "torch": torch.__version__,
        "platform": platform_key(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
