"""Which build of torch an interpreter would import, told without importing it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_difftrace.github.errors import ActionError

# version.py is all of torch that runs; importing torch takes seconds and looks for devices.
_PROBE: Final = """
import importlib.util, json, pathlib, runpy, sys, sysconfig
found = {"prefix": sys.prefix, "venv": sys.prefix != sys.base_prefix, "torch": None,
         "sites": sorted({sysconfig.get_path(name) for name in ("purelib", "platlib")})}
spec = importlib.util.find_spec("torch")
if spec is not None and spec.origin is not None:
    version = pathlib.Path(spec.origin).with_name("version.py")
    known = runpy.run_path(str(version)) if version.exists() else {}
    found["torch"] = {"file": spec.origin, "version": str(known.get("__version__", "")),
                      "hip": known.get("hip"), "cuda": known.get("cuda")}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class TorchBuild:
    """A build of torch: where it is, its version, and the HIP or CUDA it is built for."""

    file: str
    version: str
    hip: str | None
    cuda: str | None


@dataclass(frozen=True)
class Interpreter:
    """A Python with what it has.

    Attributes:
        executable: its command.
        in_venv: whether it belongs to a virtual environment.
        sites: where its packages are.
        torch: the torch it would import, None for none.
    """

    executable: str
    in_venv: bool
    sites: tuple[str, ...]
    torch: TorchBuild | None


def examine(executable: str, environment: Mapping[str, str]) -> Interpreter:
    """Return what the interpreter `executable` has.

    Raises:
        ActionError: it cannot be run.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that the workflow names
            [executable, "-c", _PROBE], env=dict(environment), capture_output=True, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        raise ActionError(
            f"input python: it cannot be run: {reason.splitlines()[-1] if reason else 'no message'}"
        ) from None
    torch = TorchBuild(**found["torch"]) if found["torch"] else None
    return Interpreter(executable, found["venv"], tuple(found["sites"]), torch)
