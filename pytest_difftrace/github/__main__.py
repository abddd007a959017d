"""`python -m pytest_difftrace.github`: what `action.yml` runs.

Without an argument: check the inputs, install, and go on as `run` in the interpreter that has the plugin. `promote
RESULTS` puts baselines that another job recorded in their places below the checkout and prints what they change, as
Markdown.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from difftrace.core.errors import DiffTraceError
from pytest_difftrace.github import runner
from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.inputs import parse

_COULD_NOT_RUN: Final = 2
_USAGE: Final = "usage: python -m pytest_difftrace.github [run | promote RESULTS [--rootdir CHECKOUT]]"


def main(arguments: Sequence[str]) -> int:
    """Do what `arguments` say and return the exit status."""
    environment = dict(os.environ)
    if arguments[:1] == ["promote"]:
        return _promote(arguments[1:])
    if list(arguments) not in ([], ["run"]):
        print(_USAGE, file=sys.stderr)
        return _COULD_NOT_RUN
    try:
        if arguments:
            from pytest_difftrace.github.verification import verify_or_record

            return verify_or_record(environment, sys.executable)
        return _prepare(environment)
    except DiffTraceError as error:
        messages = error.messages if isinstance(error, ActionError) else [str(error)]
        _give_up(environment, messages)
    except Exception as error:  # whatever it is, the workflow hears of it by its outputs
        _give_up(environment, [f"unexpected {type(error).__name__}: {error}"])
    return _COULD_NOT_RUN


def _prepare(environment: Mapping[str, str]) -> int:
    """Check the inputs, install, and replace this process by the one that has the plugin."""
    from pytest_difftrace.github.child_environment import plain
    from pytest_difftrace.github.results_folder import results_folder

    inputs = parse(environment)
    results_folder(Path(environment.get("GITHUB_WORKSPACE") or Path.cwd()), inputs.results_dir)
    python = sys.executable
    if inputs.install == "auto":
        from pytest_difftrace.github.installation import installed

        source = Path(__file__).resolve().parents[2]
        scratch = Path(environment.get("RUNNER_TEMP") or tempfile.gettempdir())
        with runner.group("Install pytest-difftrace"):
            python = installed(source, scratch, plain(environment))
    os.execv(python, [python, "-m", "pytest_difftrace.github", "run"])  # noqa: S606 - the interpreter just made


def _promote(arguments: Sequence[str]) -> int:
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--rootdir"):
        print(_USAGE, file=sys.stderr)
        return _COULD_NOT_RUN
    from pytest_difftrace.github.promotion import promoted, pull_request_body

    try:
        proposals = promoted(Path(arguments[0]), Path(arguments[2]) if len(arguments) == 3 else None)
    except DiffTraceError as error:
        runner.annotate("error", [str(error)])
        return 1
    print(pull_request_body(proposals), end="")
    return 0


def _give_up(environment: Mapping[str, str], messages: Sequence[str]) -> None:
    runner.annotate("error", messages)
    runner.set_outputs(environment, {"result": "error", "passed": "0", "diverged": "0"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
