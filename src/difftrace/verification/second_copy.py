"""Whether a second copy of a model can be had beside the first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from difftrace.core.errors import ProbeError
from difftrace.models import LoadedModel

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")

# Beside the weights: activations, logits, the interpreter.
_SLACK: Final = 512 * 2**20


def require_second_copy(loaded: LoadedModel, dtype: torch.dtype) -> None:
    """Raise ProbeError where `loaded` cannot be loaded once more, in `dtype`, beside itself.

    Accelerators say themselves that their memory is full. On the CPU the system would end a process instead, perhaps
    this one, so there it is asked before; where it does not tell, the copy may try.
    """
    if getattr(loaded.model, "hf_device_map", None):
        raise ProbeError("a model that is spread over several devices is not loaded a second time")
    if loaded.device.type != "cpu":
        return
    free = free_memory()
    needed = sum(parameter.numel() for parameter in loaded.model.parameters()) * dtype.itemsize + _SLACK
    if free is not None and needed > free:
        needs, has = (f"{count / 2**30:.1f} GiB" for count in (needed, free))
        raise ProbeError(f"a second copy of the model needs about {needs} of memory and {has} are free")


def free_memory() -> int | None:
    """Return the bytes that can be taken without swapping, as Linux and the container tell; None elsewhere."""
    known = [free for free in (_system(), _container()) if free is not None]
    return min(known, default=None)


def _system() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container() -> int | None:
    """Return what the control group leaves, caches of files not counted as taken."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        taken = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - taken + int(statistics.get("inactive_file", 0))
