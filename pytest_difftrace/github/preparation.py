"""What comes before code of the checkout runs, with nothing but Python's own library: inputs, installation, model."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_difftrace.github import runner
from pytest_difftrace.github.child_environment import for_fetch, for_installation, for_run
from pytest_difftrace.github.inputs import parse
from pytest_difftrace.github.installation import installed
from pytest_difftrace.github.prefetch import model_folder
from pytest_difftrace.github.results_folder import results_folder


@dataclass(frozen=True)
class Prepared:
    """What the process that runs pytest is started with, in place of this one.

    Attributes:
        python: the interpreter that has the plugin.
        model: folder of the model that was asked for, None for the embedded one.
        environment: its environment, without tokens.
    """

    python: str
    model: Path | None
    environment: Mapping[str, str]


def prepared(environment: Mapping[str, str]) -> Prepared:
    """Check the inputs, install the plugin and fetch the model as they say.

    Raises:
        DiffTraceError: one of that did not work; nothing of the checkout was run.
    """
    source = Path(__file__).resolve().parents[2]
    inputs = parse(environment)
    workspace = workspace_of(environment)
    results_folder(workspace, inputs.results_dir)
    python = sys.executable
    if inputs.install == "auto":
        scratch = Path(environment.get("RUNNER_TEMP") or tempfile.gettempdir())
        with runner.group("Install pytest-difftrace"):
            python = installed(source, scratch, for_installation(environment))
    model = model_folder(inputs, workspace, python, for_fetch(environment, source), source)
    return Prepared(python, model, for_run(environment, source))


def workspace_of(environment: Mapping[str, str]) -> Path:
    """Return the job's workspace, the current folder outside a runner."""
    return Path(environment.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
