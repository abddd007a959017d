"""AMD devices as Linux shows them, read from /sys and /dev: nothing of ROCm has to work for that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

VISIBLE: Final = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
"""What chooses among the devices, each among those that the one before left; the last two are two names of one."""

_NODES: Final = "sys/class/kfd/kfd/topology/nodes"
_PROCESSES: Final = "sys/class/kfd/kfd/proc"
# https://docs.kernel.org/gpu/amdgpu/driver-misc.html: memory, total and used, in bytes.
_TOTAL, _USED = "mem_info_vram_total", "mem_info_vram_used"


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        gpu_id: what the driver calls it.
        architecture: such as "gfx942".
        render: its device file, seen from the root of the file system.
        total: bytes of memory, None where that is not shown.
        used: bytes of it in use, likewise.
    """

    gpu_id: str
    architecture: str
    render: str
    total: int | None
    used: int | None


@dataclass(frozen=True)
class User:
    """A process that has memory on a device."""

    process: str
    gpu_id: str
    bytes_used: int


def architecture(target: int) -> str:
    """Return "gfx942" for 90402, as `gfx_target_version` has it: major, minor and stepping; the last are hex digits."""
    return f"gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}"


def devices(root: Path) -> list[Device]:
    """Return the GPUs that the driver shows, in its order, with `root` for "/"."""
    found = []
    nodes = root / _NODES
    for node in sorted(nodes.iterdir() if nodes.is_dir() else (), key=lambda path: (len(path.name), path.name)):
        properties = _properties(node / "properties")
        if not properties.get("gfx_target_version"):
            continue  # a processor
        minor = properties.get("drm_render_minor", 0)
        memory = root / f"sys/class/drm/renderD{minor}/device"
        found.append(
            Device(
                _text(node / "gpu_id"),
                architecture(properties["gfx_target_version"]),
                f"dev/dri/renderD{minor}",
                _number(memory / _TOTAL),
                _number(memory / _USED),
            )
        )
    return found


def chosen(found: list[Device], environment: Mapping[str, str]) -> list[Device]:
    """Return those of `found` that HIP will show, as far as the environment's indices say; names are left to HIP.

    The first index of a device that is not there, such as -1, ends the list.
    """
    for name in VISIBLE:
        indices = environment.get(name, "").split(",")
        if all(re.fullmatch(r"\s*-?\d+\s*", index) for index in indices):
            found = _picked(found, map(int, indices))
            if name == "HIP_VISIBLE_DEVICES":
                break  # CUDA_VISIBLE_DEVICES is another name of it
    return found


def _picked(found: list[Device], indices: Iterable[int]) -> list[Device]:
    return [found[index] for index in takewhile(lambda index: 0 <= index < len(found), indices)]


def openable(root: Path, file: str) -> bool:
    """Return whether this process may read and write the device file."""
    return os.access(root / file, os.R_OK | os.W_OK)


def users(root: Path, found: list[Device]) -> list[User]:
    """Return the processes with memory on one of the devices."""
    processes = root / _PROCESSES
    return [
        User(process.name, device.gpu_id, used)
        for process in sorted(processes.iterdir() if processes.is_dir() else ())
        for device in found
        if (used := _number(process / f"vram_{device.gpu_id}"))
    ]


def _properties(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
