"""What a run ran on: the fields that can decide its bits."""

from __future__ import annotations

import platform

import torch

from difftrace.determinism.devices import platform_key

Environment = dict[str, "str | int | bool | None"]


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set per backend, so that there is no single answer
        return "per backend"


def fingerprint(device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Environment:
    """Return what decides the bits of a run on `device` in `dtype`, as plain JSON values.

    Holds no host name, time, path or user. Read it inside `enforce`, so that it shows what is in force.
    """
    device = torch.device(device)
    found: Environment = {
        "platform_key": platform_key(device),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": _matmul_precision(),
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = properties.name
        found["multiprocessors"] = properties.multi_processor_count
    return found
