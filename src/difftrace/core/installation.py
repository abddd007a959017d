"""What is installed and set where a command runs, as far as that can be told without importing any of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from difftrace import __version__
from difftrace.core.baseline_json import READABLE, VERSION

PACKAGES: Final = (
    "accelerate",
    "click",
    "jsonschema",
    "numpy",
    "pyarrow",
    "pytest",
    "pytest-difftrace",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
    "zstandard",
)

# Variables that change what is computed, or how; anything else in the environment is nobody's business.
_VARIABLES: Final = re.compile(
    r"DIFFTRACE_\w+|PYTHONHASHSEED|NO_COLOR|(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB_MAXIMUM)_\w*THREADS?\w*|MKL_CBWR"
    r"|ATEN_CPU_CAPABILITY|ONEDNN_\w+|DNNL_\w+|CUBLAS_\w+|CUDA_VISIBLE_DEVICES|CUDA_LAUNCH_BLOCKING|NVIDIA_TF32_OVERRIDE"
    r"|(HIP|ROCR)_VISIBLE_DEVICES|HSA_OVERRIDE_GFX_VERSION|HIPBLASLT_\w+|ROCBLAS_\w+|MIOPEN_\w+|PYTORCH_\w+|TORCH_\w+"
    r"|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE|PYTEST_ADDOPTS|CI|GITHUB_ACTIONS"
)
_PLAIN: Final = re.compile(r"[\w:,;.^=+ -]{0,80}", re.ASCII)
_GIT_SECONDS: Final = 5.0


def installation() -> dict[str, Any]:
    """Return versions, platform, threads, plugins and settings as plain JSON data, without paths or names of hosts."""
    return {
        "difftrace": {
            "version": __version__,
            "baseline_format": _dotted(VERSION),
            "readable_formats": [_dotted(version) for version in READABLE],
        },
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
            "virtual_environment": sys.prefix != sys.base_prefix,
        },
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "libc": " ".join(filter(None, platform.libc_ver())) or None,
        },
        "threads": {"cores": os.cpu_count(), "usable_cores": _usable_cores()},
        "packages": {name: _version(name) for name in PACKAGES},
        "pytest_plugins": _pytest_plugins(),
        "environment_variables": variables(os.environ),
        "git": git_state(Path.cwd()),
    }


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that can change a run; a value that may be a path or a secret is only said to be set."""
    return {
        name: value if _PLAIN.fullmatch(value) else "set"
        for name, value in sorted(environment.items())
        if _VARIABLES.fullmatch(name)
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit that is checked out in `folder` and whether anything differs from it; None outside git."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # The locks that a status takes to refresh its index would disturb a git that is at work.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _pytest_plugins() -> dict[str, str]:
    """Return the distributions that bring plugins for pytest, with their versions."""
    found = {}
    for distribution in importlib.metadata.distributions():
        if any(entry.group == "pytest11" for entry in distribution.entry_points):
            # A folder that a removal left half deleted has no name.
            name: str | None = distribution.metadata["Name"]
            if name is not None:
                found[name] = distribution.version
    return dict(sorted(found.items()))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable_cores() -> int | None:
    # Not every system tells which cores a process may use.
    affinity = getattr(os, "sched_getaffinity", None)
    return None if affinity is None else len(affinity(0))


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
