"""`python -m pytest_difftrace.github`: what `action.yml` runs.

Without an argument: check the inputs, install, fetch the model, and go on as `run` in the interpreter that has the
plugin, in an environment without tokens. `promote RESULTS` puts baselines that another job recorded in their places
below the checkout and prints what they change, as Markdown; errors go to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from difftrace.core.errors import DiffTraceError
from pytest_difftrace.github import runner
from pytest_difftrace.github.errors import NOT_INSTALLED, ActionError
from pytest_difftrace.github.inputs import PREFIX
from pytest_difftrace.github.preparation import prepared

_COULD_NOT_RUN: Final = 2
_USAGE: Final = "usage: python -m pytest_difftrace.github [run [MODEL] | promote RESULTS [--rootdir CHECKOUT]]"


def main(arguments: Sequence[str]) -> int:
    """Do what `arguments` say and return the exit status."""
    environment = dict(os.environ)
    if arguments[:1] == ["promote"]:
        return _promote(arguments[1:])
    if arguments and (arguments[0] != "run" or len(arguments) > 2):
        print(_USAGE, file=sys.stderr)
        return _COULD_NOT_RUN
    # A cancelled job gets SIGINT, and SIGTERM where that is not enough.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(environment, arguments[1:]) if arguments else _prepare(environment)
    except DiffTraceError as error:
        _give_up(environment, error.messages if isinstance(error, ActionError) else [str(error)])
    except KeyboardInterrupt:
        _give_up(environment, ["the step was cancelled"])
    except Exception as error:  # whatever it is, the workflow hears of it by its outputs
        _give_up(environment, [f"unexpected {type(error).__name__}: {error}"])
    return _COULD_NOT_RUN


def _prepare(environment: Mapping[str, str]) -> int:
    """Prepare, and replace this process, whose environment has tokens, by the one that runs pytest."""
    ready = prepared(environment)
    words = [ready.python, "-m", "pytest_difftrace.github", "run"]
    if ready.model is not None:
        words.append(str(ready.model))
    os.execve(ready.python, words, dict(ready.environment))  # noqa: S606 - the interpreter just made


def _run(environment: Mapping[str, str], model: Sequence[str]) -> int:
    try:
        from pytest_difftrace.github.verification import verify_or_record
    except ImportError as error:
        raise ActionError(NOT_INSTALLED.format(error)) from None
    return verify_or_record(environment, sys.executable, Path(*model) if model else None)


def _promote(arguments: Sequence[str]) -> int:
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--rootdir"):
        print(_USAGE, file=sys.stderr)
        return _COULD_NOT_RUN
    from pytest_difftrace.github.promotion import promoted
    from pytest_difftrace.github.pull_request import pull_request_body

    try:
        proposals = promoted(Path(arguments[0]), Path(arguments[2]) if len(arguments) == 3 else None)
    except DiffTraceError as error:
        # What is printed is the text of a pull request; the runner reads commands from both.
        runner.annotate("error", [str(error)], sys.stderr)
        return 1
    print(pull_request_body(proposals), end="")
    return 0


def _give_up(environment: Mapping[str, str], messages: Sequence[str]) -> None:
    runner.annotate("error", messages)
    if environment.get(f"{PREFIX}SUMMARY", "").strip() != "false":
        runner.add_problems_to_summary(environment, messages)
    runner.set_outputs(environment, {"result": "error", "passed": "0", "diverged": "0"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
