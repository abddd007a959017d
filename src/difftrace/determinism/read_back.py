"""What is in force of environment variables that torch or its libraries tell about."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch

# oneMKL's header mkl_service.h, MKL_CBWR_*.
_MKL_BRANCHES: Final = {
    1: None,  # never set: what MKL does without the variable
    2: "AUTO",
    3: "COMPATIBLE",
    4: "SSE2",
    6: "SSSE3",
    7: "SSE4_1",
    8: "SSE4_2",
    9: "AVX",
    10: "AVX2",
    12: "AVX512",
}
_MKL_STRICT: Final = 0x10000


class NoReadBackError(Exception):
    """Nothing tells what is in force."""


def read_back(name: str) -> tuple[str | None, str]:
    """Return what is in force of variable `name`, spelled as the variable is, and what told it.

    Raises:
        NoReadBackError: nothing does.
    """
    if name not in _SOURCES:
        raise NoReadBackError
    source, read = _SOURCES[name]
    return read(), source


def _hash_seed() -> str | None:
    # With 0 strings hash without a seed. Of other seeds the interpreter does not tell which it has.
    if sys.flags.hash_randomization:
        raise NoReadBackError
    return "0"


def _capability() -> str | None:
    return torch.backends.cpu.get_cpu_capability().lower()


def _mkl_branch() -> str | None:
    code = _mkl_code()()
    branch = _MKL_BRANCHES.get(code % _MKL_STRICT, f"branch {code}")
    return f"{branch},STRICT" if branch and code & _MKL_STRICT else branch


@lru_cache(maxsize=1)
def _mkl_code() -> Callable[[], int]:
    """Return MKL's own getter, which torch's builds with MKL happen to export."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        getter = ctypes.CDLL(str(library)).mkl_serv_cbwr_get
    except (OSError, AttributeError) as error:
        raise NoReadBackError from error
    everything = -1
    return lambda: int(getter(everything))


_SOURCES: Final[dict[str, tuple[str, Callable[[], str | None]]]] = {
    "PYTHONHASHSEED": ("sys.flags.hash_randomization", _hash_seed),
    "ATEN_CPU_CAPABILITY": ("torch.backends.cpu.get_cpu_capability()", _capability),
    "MKL_CBWR": ("MKL's mkl_cbwr_get()", _mkl_branch),
}
