"""Checkpoints of a few kilobytes, written to order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from difftrace.models.config import LLaDAConfig
from difftrace.models.llada import LLaDAModel

TINY: dict[str, Any] = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "mlp_hidden_size": 24,
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "rope": True,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "max_sequence_length": 64,
    "vocab_size": 40,
    "embedding_size": 48,
    "mask_token_id": 39,
    "eos_token_id": 38,
    "pad_token_id": 38,
}

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tiny_values() -> dict[str, Any]:
    """The config.json of a tiny model, as a fresh dict."""
    return dict(TINY)


@pytest.fixture(scope="session")
def _tiny_weights() -> Tensors:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(5)
        model = LLaDAModel(LLaDAConfig.from_json(TINY))
        return {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


@pytest.fixture
def tiny_tensors(_tiny_weights: Tensors) -> Tensors:
    """Its weights by published name, in fp32, as a fresh dict of fresh tensors."""
    return {name: tensor.clone() for name, tensor in _tiny_weights.items()}


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model folder: config.json, and the tensors in one file or dealt out over `shards` with an index."""

    def write(tensors: Tensors, name: str = "model", shards: int = 0, values: Mapping[str, Any] = TINY) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(dict(values)))
        if not shards:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            return folder
        weight_map = {}
        for shard in range(shards):
            part = {key: tensors[key] for key in sorted(tensors)[shard::shards]}
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            save_file(part, folder / file, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(part, file))
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return write


@pytest.fixture(scope="session")
def write_tokenizer() -> Callable[..., None]:
    """Write tokenizer.json with 40 words: "w0" … "w36", `<|eot_id|>`, `<eos>`, `<mask>`, split at spaces."""

    def write(folder: Path, eot: int = 37) -> None:
        words = {f"w{n}": n for n in range(37)} | {"<|eot_id|>": eot, "<eos>": 38, "<mask>": 39}
        special = [
            {"id": words[text], "content": text, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for text in ("<|eot_id|>", "<eos>", "<mask>")
        ]
        content = {
            "version": "1.0",
            "added_tokens": special,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
        }
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return write
