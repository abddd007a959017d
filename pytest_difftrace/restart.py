"""Starting pytest anew under a fixed hash seed, which Python reads only when it starts.

It is done only where it can be told for certain that this process is pytest and nothing else: everywhere else running
it again would run somebody's program twice, or leave somebody's debugger behind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

# Tells the process that a restart leads to what it is. That process takes it out of its environment at once, so that
# none that it starts in turn finds it.
GUARD: Final = "_DIFFTRACE_RESTARTED"

_MODULES: Final = ("pytest", "py.test")
_SCRIPT: Final = re.compile(r"(pytest|py\.test)(-?3(\.\d+)?)?(\.exe|-script\.pyw?)?", re.IGNORECASE)
_OPTIONS_WITH_VALUE: Final = "WX"

# What runs while pytest starts: its own code, and what imports and calls it.
_STARTING: Final = ("_pytest.config.", "pluggy.", "pytest_difftrace.", "runpy.")
_MAIN: Final = "__main__.<module>"

_DEBUGGERS: Final = frozenset({"pydevd", "_pydevd_bundle", "debugpy"})
_TOOLS: Final = range(6)


@dataclass(frozen=True)
class Process:
    """What is known about this process before any test is loaded.

    Attributes:
        executable: `sys.executable`.
        orig_argv: the command line with the interpreter's own options, `sys.orig_argv`.
        arguments: the command line as the program sees it, `sys.argv[1:]`.
        invocation: what `pytest.main` was called with.
        stack: "module.function" for each function that is running, outermost first.
        modules: names of the imported modules.
        environment: the environment.
        seed_fixed: whether strings hash as they will in the next process that is started like this one.
        restarted: whether this is the process that a restart led to.
        ignores_environment: whether Python was told to (-E, -I).
        traced: whether a trace or profile function is set.
        monitors: the tools that use `sys.monitoring`.
        measured: whether coverage measures this process or is about to.
    """

    executable: str
    orig_argv: tuple[str, ...]
    arguments: tuple[str, ...]
    invocation: tuple[str, ...]
    stack: tuple[str, ...]
    modules: frozenset[str]
    environment: Mapping[str, str]
    seed_fixed: bool
    restarted: bool
    ignores_environment: bool
    traced: bool
    monitors: tuple[str, ...]
    measured: bool


@dataclass(frozen=True)
class Restart:
    """Start anew, with this command line."""

    argv: tuple[str, ...]


@dataclass(frozen=True)
class Stay:
    """Go on in this process; `reason` says why the hash seed is not in force, None where it is."""

    reason: str | None


def decide(process: Process) -> Restart | Stay:
    """Return whether `process` is to be started anew."""
    if process.seed_fixed:
        return Stay(None)
    obstacle = _obstacle(process)
    if obstacle is not None:
        return Stay(obstacle)
    return Restart((process.executable, *process.orig_argv[1:]))


def _obstacle(process: Process) -> str | None:
    if process.restarted:
        return "pytest was started anew, but strings hash at random all the same"
    if process.ignores_environment:
        return "Python ignores PYTHONHASHSEED under -E and -I"
    if process.measured:
        return "coverage is being measured"
    if process.modules & _DEBUGGERS:
        return "a debugger is attached"
    if process.traced:
        return "a debugger or profiler is attached"
    if process.monitors:
        return f"{', '.join(process.monitors)} is watching"
    if "vscode_pytest" in process.modules or "PYCHARM_HOSTED" in process.environment:
        return "an IDE runs pytest"
    if not process.executable or not _is_pytest_itself(process):
        return "pytest was started by other code"
    return None


def _is_pytest_itself(process: Process) -> bool:
    if not process.arguments == process.invocation == pytest_arguments(process.orig_argv):
        return False
    # A test that calls pytest.main is on the stack, and so is a script that was given pytest's name.
    others = [name for name in process.stack if not name.startswith(_STARTING)]
    entry = next((name for name in process.stack if name.startswith("_pytest.")), "")
    return others == [_MAIN] and entry.endswith("console_main")


def pytest_arguments(orig_argv: Sequence[str]) -> tuple[str, ...] | None:
    """Return what a command line tells pytest; None if it runs anything but pytest."""
    words = list(orig_argv[1:])
    while words:
        word = words.pop(0)
        if word == "--check-hash-based-pycs":
            del words[:1]
        elif word == "--" or not word.startswith("-"):
            script = word if word != "--" else words.pop(0) if words else ""
            return tuple(words) if _SCRIPT.fullmatch(re.split(r"[/\\]", script)[-1]) else None
        elif word == "-" or word.startswith("--"):
            return None
        else:
            # Options may stand together, -Bm, and the last one's value may be joined to it, -Wignore.
            letter, value = _last_option(word)
            if letter and not value and words:
                value = words.pop(0)
            if letter == "m":
                return tuple(words) if value in _MODULES else None
            if letter == "c":
                return None
    return None


def _last_option(word: str) -> tuple[str, str]:
    """Return the option in `word` that takes a value, "" if none does, and the value joined to it."""
    for index, letter in enumerate(word):
        if letter in f"{_OPTIONS_WITH_VALUE}cm":
            return letter, word[index + 1 :]
    return "", ""


def this_process(config: pytest.Config, *, restarted: bool, seed_fixed: bool) -> Process:
    """Return what is known about this process."""
    return Process(
        executable=sys.executable or "",
        orig_argv=tuple(sys.orig_argv),
        arguments=tuple(sys.argv[1:]),
        invocation=tuple(map(str, config.invocation_params.args)),
        stack=_stack(),
        modules=frozenset(sys.modules),
        environment=dict(os.environ),
        seed_fixed=seed_fixed,
        restarted=restarted,
        ignores_environment=bool(sys.flags.ignore_environment or sys.flags.isolated),
        traced=sys.gettrace() is not None or sys.getprofile() is not None,
        monitors=_monitors(),
        measured=_is_measured(config),
    )


def _stack() -> tuple[str, ...]:
    names = []
    frame = sys._getframe(1)
    while True:
        names.append(f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_name}")
        if frame.f_back is None:
            return tuple(reversed(names))
        frame = frame.f_back


def _monitors() -> tuple[str, ...]:
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    if monitoring is None:
        return ()
    return tuple(name for name in map(monitoring.get_tool, _TOOLS) if name)


def _is_measured(config: pytest.Config) -> bool:
    # pytest-cov imports coverage in every run; what counts is whether anything is measured.
    coverage = getattr(sys.modules.get("coverage"), "Coverage", None)
    if coverage is not None and coverage.current() is not None:
        return True
    asked = config.known_args_namespace
    return bool(getattr(asked, "cov_source", None)) and not getattr(asked, "no_cov", False)


def start_anew(argv: Sequence[str], environment: Mapping[str, str], *, windows: bool = os.name == "nt") -> str:
    """Let the same command line run under `environment` in place of this process; return why that failed.

    On Windows, where no process can take another's place, this one waits for its child and ends with its exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        if windows:
            raise SystemExit(_status_of_child(argv, environment))
        os.execve(argv[0], list(argv), dict(environment))  # noqa: S606 - no shell is meant
    except OSError as error:
        return f"Python could not be started anew ({error.strerror})"


def _status_of_child(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    with subprocess.Popen(list(argv), env=dict(environment)) as child:  # noqa: S603 - our own command line
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                # The child has got it as well, and is the one to say what it means.
                continue
