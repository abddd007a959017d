"""What is checked on a machine with an AMD device before a model is loaded on it; each finding says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from difftrace.determinism.profiles import GFX942, ROCM
from pytest_difftrace.github import amd_devices
from pytest_difftrace.github.amd_devices import Device
from pytest_difftrace.github.torch_build import TorchBuild

_PROFILES: Final = (GFX942, ROCM)
_GIB: Final = 1 << 30
_LEAST_FREE: Final = 2 * _GIB
_ALLOWANCE: Final = 1.25
"""Activations and the allocator's rounding, over the weights; LLaDA-8B at 1024 positions stays below it."""

_CONTAINER: Final = "in a container pass --device=/dev/kfd --device=/dev/dri"
_GROUPS: Final = "add --group-add video and --group-add with the number of the host's render group"


@dataclass(frozen=True)
class Findings:
    """What stands in the way, and what only is worth knowing."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def applies(profile: str) -> bool:
    """Return whether there is something to check."""
    return profile in _PROFILES


def check(profile: str, torch: TorchBuild | None, environment: Mapping[str, str], root: Path, weights: int) -> Findings:
    """Return what is found, with `root` for "/" and `weights` bytes of model to be loaded (0 where not known)."""
    errors: list[str] = []
    if torch is None or not torch.hip:
        built = "there is none" if torch is None else f"{torch.version} is built for {torch.cuda or 'the CPU'}"
        errors.append(
            f"torch is not built for HIP ({built}): run in a rocm/pytorch container, or install torch from"
            " https://download.pytorch.org/whl/rocm*; profile cpu-portable needs no device"
        )
    unusable = _unusable(root)
    if unusable is not None:
        return Findings((*errors, unusable))
    found = amd_devices.devices(root)
    visible = amd_devices.chosen([one for one in found if amd_devices.openable(root, one.render)], environment)
    if not visible:
        return Findings((*errors, _none_visible(found, environment)))
    if profile == GFX942:
        errors += [
            f"profile {GFX942} is for gfx942, and this device is {one.architecture}: use profile {ROCM}, or another"
            " runner"
            for one in visible
            if one.architecture != "gfx942"
        ][:1]
    errors += filter(None, [_memory(visible[0], weights)])
    return Findings(tuple(errors), tuple(filter(None, [_shared(root, visible)])))


def _unusable(root: Path) -> str | None:
    if not (root / "dev/kfd").exists():
        return f"/dev/kfd is not there: {_CONTAINER}, and load the amdgpu driver on the host"
    if not amd_devices.openable(root, "dev/kfd"):
        return f"/dev/kfd may not be opened by this user: {_GROUPS}"
    if not list((root / "dev/dri").glob("renderD*")):
        return f"there is no /dev/dri/renderD*: {_CONTAINER}"
    return None


def _none_visible(found: list[Device], environment: Mapping[str, str]) -> str:
    if not found:
        return "the amdgpu driver shows no GPU in /sys/class/kfd: look at dmesg on the host"
    names = [name for name in amd_devices.VISIBLE if environment.get(name)]
    if names:
        return f"{' and '.join(names)} leave none of the {len(found)} GPUs that can be opened: unset or correct them"
    return f"none of /dev/dri/renderD* that belong to the {len(found)} GPUs may be opened: {_GROUPS}"


def _memory(first: Device, weights: int) -> str | None:
    """Return what is wrong with the memory of the device that models are loaded on where the tests name none."""
    if first.total is None or first.used is None:
        return None
    free, needed = first.total - first.used, max(_LEAST_FREE, int(weights * _ALLOWANCE))
    if free >= needed:
        return None
    return (
        f"{free / _GIB:.1f} GiB of device memory are free and about {needed / _GIB:.1f} GiB are needed: end what"
        " else runs on the first visible GPU (rocm-smi --showpids lists it), or choose another with HIP_VISIBLE_DEVICES"
    )


def _shared(root: Path, visible: list[Device]) -> str | None:
    users = amd_devices.users(root, visible)
    if not users:
        return None
    processes = sorted({one.process for one in users})
    total = sum(one.bytes_used for one in users) / _GIB
    return (
        f"other processes use the GPU: {', '.join(processes[:10])} hold {total:.1f} GiB; decisions do not depend on"
        " them, time and free memory do. Give the runner a GPU of its own with HIP_VISIBLE_DEVICES or a runner group"
    )
