"""Which profile and which platform a device is, by what torch reports."""

from __future__ import annotations

from operator import methodcaller

import torch

from difftrace.core.errors import DeterminismError
from difftrace.determinism.profiles import CPU, CUDA, GENERIC, PORTABLE, PROFILES, ROCM

# Test runners then show the caller's line, not ours.
__tracebackhide__ = methodcaller("errisinstance", DeterminismError)


def family_of(device: torch.device | str | None) -> str:
    """Return the profile for the kind of `device`, without starting it; None is the accelerator that torch finds.

    Raises DeterminismError for what names no device.
    """
    kind = default_device_type() if device is None else _device(device).type
    if kind == "cpu":
        return CPU
    if kind != "cuda":
        return GENERIC
    return ROCM if torch.version.hip else CUDA


def profile_of(device: torch.device | str | None) -> str:
    """Return the profile for `device`; None is the accelerator that torch finds, else the CPU.

    An AMD device is started by this, because it has to be asked for its architecture. Raises DeterminismError for
    what names no device.
    """
    family = family_of(device)
    if family != ROCM:
        return family
    key = f"rocm-{architecture(_device(device or 'cuda'))}"
    return key if key in PROFILES else ROCM


def refuse_unfit(profile: str, device: torch.device | str) -> None:
    """Raise DeterminismError if `profile` is none for `device`."""
    own = profile_of(device)
    if profile == own or (own == CPU and profile == PORTABLE) or {own, profile} <= {p for p in PROFILES if "rocm" in p}:
        return
    raise DeterminismError(
        f"determinism profile {profile} is not for device {str(device)!r}: drop it, which means {own} there"
    )


def architecture(device: torch.device) -> str | None:
    """Return a CUDA or ROCm device's architecture, `sm90` or `gfx942`; None for other devices."""
    if device.type != "cuda":
        return None
    if torch.version.hip:
        # "gfx942:sramecc+:xnack-": the features after the colon are settings of the machine, not its kind.
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm{major}{minor}"


def platform_key(device: torch.device) -> str:
    """Return the platform's short name: `cpu`, `cuda-sm90`, `rocm-gfx942`, or the device type.

    Declared from the architecture alone: it holds nothing that jitters from run to run.
    """
    kind = "rocm" if device.type == "cuda" and torch.version.hip else device.type
    return "-".join(filter(None, (kind, architecture(device))))


def _device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeterminismError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error


def default_device_type() -> str:
    """Return the type of the accelerator that torch finds, else "cpu"."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else found.type
