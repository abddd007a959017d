"""Versions and names of what computes: packages, the libraries under torch, drivers, the processor.

Nothing is imported or started to find them. None where it is not known.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch

import difftrace

# Those whose code decides what a model computes or which ids a text has.
_PACKAGES: Final = ("numpy", "tokenizers", "transformers")
# Those that bring kernels of their own to a device.
_DEVICE_PACKAGES: Final = ("flash_attn", "triton")

Names = dict[str, "str | None"]


@lru_cache(maxsize=1)
def software() -> Names:
    """Return what every run has under it."""
    found: Names = {
        "python": platform.python_version(),
        "difftrace": difftrace.__version__,
        "torch": torch.__version__,
        "torch_git": torch.version.git_version and torch.version.git_version[:12],
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        **torch_libraries(torch.__config__.show()),
        **{name: _package(name) for name in _PACKAGES},
        "cpu": processor(_first_lines(Path("/proc/cpuinfo"))) or platform.processor() or None,
    }
    return {name: plain(value) for name, value in found.items()}


@lru_cache(maxsize=1)
def device_software() -> Names:
    """Return what a run on a CUDA or ROCm device has under it besides."""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    found: Names = {
        "driver": driver(),
        "device_blas": _rocblas() if torch.version.hip else _cublas(),
        # On ROCm that is MIOpen's.
        "cudnn": None if cudnn is None else str(cudnn),
        **{name: _package(name) for name in _DEVICE_PACKAGES},
    }
    return {name: plain(value) for name, value in found.items()}


def plain(value: str | None) -> str | None:
    """Return a name on one line, without path separators: some devices are called "MI250X/MI250"."""
    return None if value is None else re.sub(r"[/\\]", "-", " ".join(str(value).split()))


def torch_libraries(config: str) -> Names:
    """Return versions of BLAS, oneDNN and OpenMP from what torch says of how it was built."""
    kind = _found(r"\bBLAS_INFO=(\w+)", config)
    mkl = _found(r"(?:Math Kernel Library|oneMKL) Version (.+?)(?: for |$)", config)
    return {
        "blas": " ".join(filter(None, (kind, mkl if kind in (None, "mkl") else None))) or None,
        "onednn": _found(r"MKL-DNN v([\d.]+)", config) or _found(r"oneDNN v([\d.]+)", config),
        "openmp": _found(r"^\s*- OpenMP (\d+)", config),
    }


def processor(cpuinfo: str) -> str | None:
    """Return the processor's name from Linux' /proc/cpuinfo; Arm's processors give numbers in place of a name."""
    name = _found(r"^model name\s*: (.+)$", cpuinfo)
    if name is not None:
        return name
    maker, part = (_found(rf"^CPU {key}\s*: (\w+)$", cpuinfo) for key in ("implementer", "part"))
    return None if maker is None or part is None else f"implementer {maker} part {part}"


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else match[1].strip()


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_lines(path: Path) -> str:
    """Return a file's start; nothing where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""


def driver() -> str | None:
    """Return the version of the device's driver, from what the kernel says of it."""
    if torch.version.hip:
        # Only the module that AMD distributes has a version; the kernel's own does not.
        return _first_lines(Path("/sys/module/amdgpu/version")).strip() or None
    found = _first_lines(Path("/sys/module/nvidia/version")).strip()
    # The second file also names who built the driver, and where.
    return found or _found(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _first_lines(Path("/proc/driver/nvidia/version")))


def _cublas() -> str | None:
    library = _loaded("libcublas")
    if library is None:
        return None
    numbers = []
    for which in range(3):  # major, minor, patch: libraryPropertyType in CUDA's library_types.h
        number = ctypes.c_int()
        if library.cublasGetProperty(which, ctypes.byref(number)) != 0:
            return None
        numbers.append(str(number.value))
    return f"cublas {'.'.join(numbers)}"


def _rocblas() -> str | None:
    library = _loaded("librocblas")
    if library is None:
        return None
    text = ctypes.create_string_buffer(256)
    if library.rocblas_get_version_string(text, ctypes.c_size_t(len(text))) != 0:
        return None
    return f"rocblas {text.value.decode(errors='replace')}"


def _loaded(name: str) -> ctypes.CDLL | None:
    """Return the shared library `name` if this process has it in memory, so that it is the one torch uses."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if f"/{name}.so" in line}
        return ctypes.CDLL(min(paths), mode=os.RTLD_NOLOAD) if paths else None
    except OSError:
        return None
