"""Installing the plugin beside what is there, in a virtual environment that sees it; torch stays as it is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.torch_build import Interpreter, TorchBuild, examine

_INHERITED: Final = "difftrace-inherited.pth"
# Written last: without it the environment is one whose making was cut off.
_COMPLETE: Final = "difftrace-complete"


def installed(source: Path, scratch: Path, environment: Mapping[str, str]) -> str:
    """Install the distribution in the folder `source` for this interpreter and return the interpreter that has it.

    The environment is made in `scratch`, and used again by a later call with the same one. A torch that is found is
    what runs: pip may not replace it.

    Raises:
        ActionError: it could not be installed, or torch is another afterwards.
    """
    before = examine(sys.executable, environment)
    folder = scratch / f"difftrace-{hashlib.sha256(sys.executable.encode()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    complete = folder / _COMPLETE
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(
            [sys.executable, "-m", "venv", "--system-site-packages", str(folder)],
            environment,
            "no virtual environment could be made: install Python's venv module (on Debian python3-venv), or install"
            " pytest-difftrace yourself and set the input install to none",
        )
        _inherit(before, python, environment)
        complete.touch()
    constraints = folder / "difftrace-constraints.txt"
    constraints.write_text(constraint(before.torch), encoding="utf-8")
    # Byte code is made of what is imported, when it is; of all of torch it takes half a minute.
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--quiet"]
    _run(
        [*pip, "--constraint", str(constraints), f"{source}[torch]"],
        environment,
        "pip could not install pytest-difftrace; its messages are above"
        + (f" (torch {before.torch.version} is kept as it is)" if before.torch else ""),
    )
    problem = changed(before.torch, examine(str(python), environment).torch)
    if problem is not None:
        raise ActionError(problem)
    return str(python)


def constraint(torch: TorchBuild | None) -> str:
    """Return the constraint for pip that keeps `torch`; empty where there is none to keep."""
    return f"torch=={torch.version}\n" if torch is not None and torch.version else ""


def changed(before: TorchBuild | None, after: TorchBuild | None) -> str | None:
    """Return what to say of a torch that is another one after the installation; None where it is not."""
    if before is None:
        return None if after is not None else "torch is not there after the installation: install it before this action"
    if after == before:
        return None
    return (
        f"the installation changed torch: torch.version.hip was {before.hip} and is {after.hip if after else None},"
        f" the version was {before.version} and is {after.version if after else None};"
        " install pytest-difftrace in the image and set the input install to none"
    )


def _inherit(parent: Interpreter, python: Path, environment: Mapping[str, str]) -> None:
    """Let the new environment see the packages of `parent`; venv passes over those of a virtual environment."""
    if parent.in_venv:
        [site, *_] = examine(str(python), environment).sites
        # Not the bare paths: those in which packages are installed in editable mode have path files of their own.
        lines = [f"import site; site.addsitedir({path!r})\n" for path in parent.sites]
        Path(site, _INHERITED).write_text("".join(lines), encoding="utf-8")


def _run(command: Sequence[str], environment: Mapping[str, str], failure: str) -> None:
    try:
        status = subprocess.run(command, env=dict(environment), check=False).returncode  # noqa: S603 - our own words
    except OSError as error:
        raise ActionError(f"{failure} ({error.strerror})") from None
    if status:
        raise ActionError(failure)
