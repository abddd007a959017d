"""Settings under which one machine repeats a run bit for bit, put back afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# cuBLAS repeats itself only with a fixed workspace; torch raises under deterministic algorithms without one.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACE_VALUE = ":4096:8"


@contextmanager
def enforce(seed: int = 0, threads: int | None = None) -> Iterator[None]:
    """Run the body deterministically: seeds, strict algorithms, full fp32 products, one attention backend.

    Seeds the generators of `random`, numpy and torch (all devices); makes torch raise where an operation has no
    deterministic form; computes fp32 products in fp32; runs attention as plain matrix products (`MATH`), the only
    backend that exists everywhere. `threads` is the number of CPU threads, which decides how long sums are split and so
    their last bits; None leaves it as it is. On the way out, also on an exception, every setting, generator state and
    environment variable is what it was.
    """
    with ExitStack() as undo:
        _seed(seed, undo)
        # The switch that use_deterministic_algorithms turns too, but that one also imports torch's compiler, which
        # takes seconds and which nothing here uses.
        undo.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
        if torch.version.cuda and _WORKSPACE not in os.environ:
            os.environ[_WORKSPACE] = _WORKSPACE_VALUE
            undo.callback(os.environ.pop, _WORKSPACE, None)
        torch.set_deterministic_debug_mode("error")
        _full_fp32(undo)
        if threads is not None:
            undo.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        undo.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _full_fp32(undo: ExitStack) -> None:
    # Since torch 2.9 every backend has a setting of its own, which the global one below overwrites.
    for backend in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)):
        if backend is not None and hasattr(backend, "fp32_precision"):
            undo.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
    # torch refuses to read the global one where the backends' own settings contradict it.
    with suppress(RuntimeError):
        undo.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    torch.set_float32_matmul_precision("highest")


def _seed(seed: int, undo: ExitStack) -> None:
    undo.callback(random.setstate, random.getstate())
    undo.callback(np.random.set_state, np.random.get_state())
    # Only a CUDA that is in use has states to put back; asking one that is not would set up a context per device.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    undo.enter_context(torch.random.fork_rng(devices=devices))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
