"""What a run ran on: the fields that can decide its bits."""

from __future__ import annotations

import platform
import re
from functools import lru_cache
from typing import Final

import torch

from difftrace.determinism.canary import canary
from difftrace.determinism.devices import architecture, default_device_type, platform_key, profile_of
from difftrace.determinism.enforcement import innermost
from difftrace.determinism.libraries import device_software, plain, software
from difftrace.determinism.profiles import CPU, PORTABLE, Row, Value, rows
from difftrace.determinism.switch_states import states

Environment = dict[str, Value]

# Settings of backends that this kind of device has no part in.
_FOREIGN: Final = {"cpu": ("cuda.", "cudnn."), "cuda": ("mkldnn.",)}
# Shown as cpu_capability, which is what it sets.
_SHOWN_ELSEWHERE: Final = "ATEN_CPU_CAPABILITY"
# What switches are set to. Anything else that a variable may hold is nobody's business.
_SWITCH_LIKE: Final = re.compile(r"[\w:,;.^=+-]{1,40}", re.ASCII)
_PATHS: Final = ("_FILE", "_PATH", "_DIR")

_SMALLEST_NORMAL: Final = 2.0**-1022


def fingerprint(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Environment:
    """Return what decides the bits of a run on `device` in `dtype`, as plain JSON values under sorted names.

    `difftrace.core.environments.FIELDS` says why each is there and what it means for `comparable`; the others are the
    switches of the device's determinism profile as they are in force now, None where this torch does not tell. The
    values are read anew, inside `enforce` or outside. `canary` shows what they leave out
    (`difftrace.determinism.canary`); it is computed, in milliseconds, the first time that the other fields are as they
    are. Nothing is changed, and nothing names a host, a user, a path or a time.

    `device` None is the CPU inside an `enforce` for it, else the accelerator that torch finds, else the CPU. `dtype`
    None, where it is not known, is recorded as such, and the canary is of fp32.
    """
    chosen = _device(device)
    held = innermost()
    found: Environment = {
        **software(),
        **_hardware(chosen),
        **_switches(chosen),
        "profile": None if held is None else held.profile,
        "dtype": None if dtype is None else _name(dtype),
        "default_dtype": _name(torch.get_default_dtype()),
        "autocast": _autocast(chosen.type),
        "flush_denormal": _flushes_denormals(),
    }
    found["canary"] = _canary(chosen, dtype, tuple(sorted(found.items())))
    return dict(sorted(found.items()))


@lru_cache(maxsize=64)
def _canary(device: torch.device, dtype: torch.dtype | None, under: tuple[tuple[str, Value], ...]) -> str:
    """Return the canary, computed once for all runs `under` the same fields."""
    return canary(device, dtype)


def _device(given: torch.device | str | None) -> torch.device:
    if given is not None:
        return torch.device(given)
    held = innermost()
    return torch.device("cpu" if held is not None and held.profile in (CPU, PORTABLE) else default_device_type())


def _hardware(device: torch.device) -> Environment:
    found: Environment = {
        "platform_key": platform_key(device),
        "architecture": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = plain(properties.name)
        # AMD's names its settings too ("gfx942:sramecc+:xnack-"), which choose among kernels.
        found["device_architecture"] = properties.gcnArchName if torch.version.hip else architecture(device)
        found["multiprocessors"] = properties.multi_processor_count
        found.update(device_software())
    return found


def _switches(device: torch.device) -> Environment:
    profile = profile_of(device)
    # The variables that pin one CPU to another's arithmetic count also where nobody asked for that.
    table = rows(PORTABLE if profile == CPU else profile)
    foreign = _FOREIGN.get(device.type, ())
    wanted = [row for row in table if not row.name.startswith(foreign) and row.name != _SHOWN_ELSEWHERE]
    found = states({row: row.value for row in wanted})
    return {row.name: _value(row, state.effective) for row, state in zip(wanted, found, strict=True)}


def _value(row: Row, effective: Value) -> Value:
    if not row.is_variable:
        return effective
    if effective is None:
        return "unset"
    text = str(effective)
    return "set" if row.name.endswith(_PATHS) or not _SWITCH_LIKE.fullmatch(text) else text


def _autocast(kind: str) -> str:
    return _name(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "off"


def _flushes_denormals() -> bool:
    """Return whether this thread's arithmetic makes zero of what is too small, which torch sets but does not tell."""
    return _SMALLEST_NORMAL / 2 == 0.0


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
