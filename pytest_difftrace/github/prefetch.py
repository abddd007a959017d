"""Fetching a pinned model before the run, which then is offline."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from difftrace.core.text import printable
from pytest_difftrace.github.errors import NOT_INSTALLED, ActionError
from pytest_difftrace.github.inputs import Inputs

_NOT_THERE: Final = 3
# In a process of its own: the package of models imports torch.
_FETCH: Final = f"""
import sys
try:
    from difftrace.models.hub import snapshot
except ImportError as error:
    print(error)
    sys.exit({_NOT_THERE})
from difftrace.core.errors import DiffTraceError
try:
    print(snapshot(*sys.argv[1:]))
except DiffTraceError as error:
    sys.exit(str(error))
"""


def model_folder(
    inputs: Inputs, workspace: Path, python: str, environment: Mapping[str, str], source: Path
) -> Path | None:
    """Return the folder of the model that is asked for, fetched if it is not cached; None for the embedded one.

    The fetch runs in the action's folder `source`: in the workspace Python would take modules of the checkout for those
    that are installed, and this alone has the hub's token.

    Raises:
        ActionError: it is not to be had.
    """
    if not inputs.model:
        return None
    if inputs.hub_model is None:
        folder = workspace / Path(inputs.model).expanduser()
        if not folder.is_dir():
            raise ActionError(
                "input model: there is no such folder; of the hub it takes owner/name@ and the full 40-hex commit"
            )
        return folder
    done = subprocess.run(  # noqa: S603 - our own words; the arguments are matched by patterns
        [python, "-c", _FETCH, *inputs.hub_model],
        env=dict(environment),
        cwd=source,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode == _NOT_THERE and lines:
        raise ActionError(NOT_INSTALLED.format(printable(lines[-1])))
    if done.returncode or not lines:
        raise ActionError(
            "input model: it could not be fetched, see the messages above; where the runner has no network, mount a"
            " cache that has it and set HF_HOME"
        )
    return Path(lines[-1])


def weight_bytes(folder: Path | None) -> int:
    """Return how many bytes of weights are in `folder`."""
    return 0 if folder is None else sum(file.stat().st_size for file in folder.glob("*.safetensors"))
