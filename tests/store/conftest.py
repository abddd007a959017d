from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from difftrace.store import Record, Store

PROGRAMS = Path(__file__).parent / "programs"


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"store_programs_{name}", PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether long loops run in full."""
    return os.environ.get("DIFFTRACE_TEST_FULL") == "1"


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    made: Callable[..., Record] = _load("records").make_record
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.difftrace"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path, timeout=5) as opened:
        yield opened


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program: a file, the name of one of ours, or code; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str | Path, *arguments: str) -> subprocess.Popen[str]:
        if isinstance(program, str) and program.isidentifier():
            program = PROGRAMS / f"{program}.py"
        what = [str(program)] if isinstance(program, Path) else ["-c", program]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAMS), *sys.path])}
        process = subprocess.Popen(
            [sys.executable, *what, *arguments], text=True, env=environment, start_new_session=True, **pipes
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            # With the children it may have left, which would keep its pipes open.
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def finish(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run to the end what `start` starts."""

    def run(program: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = start(program, *arguments)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run
