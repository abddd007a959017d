"""Torch's settings as they are read without DiffTrace."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch

_BACKENDS = (
    "",
    "cuda.matmul",
    "cudnn",
    "cudnn.conv",
    "cudnn.rnn",
    "mkldnn",
    "mkldnn.matmul",
    "mkldnn.conv",
    "mkldnn.rnn",
)


def _backend(path: str) -> Any:
    return reduce(getattr, filter(None, path.split(".")), torch.backends)


def _or_error(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (RuntimeError, AttributeError) as error:
        return type(error).__name__


def _settings() -> dict[str, Any]:
    """Read everything that `enforce` may touch."""
    cuda, matmul = torch.backends.cuda, torch.backends.cuda.matmul
    return {
        **{f"{path}.fp32_precision": _or_error(lambda p=path: _backend(p).fp32_precision) for path in _BACKENDS},
        "float32_matmul_precision": _or_error(torch.get_float32_matmul_precision),
        "matmul.allow_tf32": _or_error(lambda: matmul.allow_tf32),
        "cudnn.allow_tf32": _or_error(lambda: torch.backends.cudnn.allow_tf32),
        "deterministic": torch.get_deterministic_debug_mode(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "bf16": torch._C._get_cublas_allow_bf16_reduced_precision_reduction(),
        "fp16": torch._C._get_cublas_allow_fp16_reduced_precision_reduction(),
        "fp16 sums": matmul.allow_fp16_accumulation,
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        "math reduction": cuda.fp16_bf16_reduction_math_sdp_allowed(),
        "cudnn flags": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "mkldnn": _or_error(lambda: torch.backends.mkldnn.deterministic),
        "blas": str(cuda.preferred_blas_library()),
        "rocm attention": str(cuda.preferred_rocm_fa_library()),
        "threads": torch.get_num_threads(),
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
        "compiler": getattr(sys.modules.get("torch._dynamo.eval_frame"), "_stance", None),
    }


def _undo(before: dict[str, Any]) -> None:
    for path in before:
        _backend(path).fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for path, value in before.items():
        _backend(path).fp32_precision = value
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def settings_now() -> Callable[[], dict[str, Any]]:
    """Return the function that reads all settings."""
    return _settings


@pytest.fixture
def precision_undone() -> Iterator[Callable[[], None]]:
    """Undo what a test itself does to fp32 precision and the deterministic mode, also in between."""
    before = {path: _backend(path).fp32_precision for path in _BACKENDS if hasattr(_backend(path), "fp32_precision")}
    yield lambda: _undo(before)
    _undo(before)
