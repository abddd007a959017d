"""Small suites run by an inner pytest, in this process where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# The inner pytest forgets modules that it was the first to import; numpy cannot be imported twice in one process.
import difftrace.core.baseline
import difftrace.core.run
import difftrace.core.schemas
import pytest_difftrace.checker
import pytest_difftrace.early
import pytest_difftrace.recording  # noqa: F401

PRELUDE = """
import os
from pathlib import Path
import pytest
from difftrace import Trajectory
from difftrace.core.run import Run

def traj(*tokens):
    count = len(tokens)
    return Trajectory(prompt=[1, 2], initial=[1, 2] + [99] * count, steps=list(range(count)),
                      positions=list(range(2, 2 + count)), tokens=list(tokens), num_steps=count)
"""

# Plugins that only cost time here: in each inner run anew, hypothesis imports its engine and anyio its backends.
QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")

Suite = Callable[..., Path]
Pytest = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def _validator() -> None:
    difftrace.core.schemas.validator("baseline")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """Write the test module `test_x.py` (or another name) and return its path."""

    def write(body: str, name: str = "test_x") -> Path:
        return pytester.makepyfile(**{name: PRELUDE + body})

    return write


@pytest.fixture
def run_pytest(pytester: pytest.Pytester) -> Pytest:
    """Run the inner pytest in this process, without the outer one's distribution over workers."""

    def run(*arguments: str | Path) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*QUIET, *arguments)

    return run


@pytest.fixture
def baselines(pytester: pytest.Pytester) -> Callable[[], dict[str, bytes]]:
    """Return every file below `__difftrace__` folders, by path from the suite's folder."""

    def read() -> dict[str, bytes]:
        found = sorted(pytester.path.rglob("__difftrace__/**/*"))
        return {path.relative_to(pytester.path).as_posix(): path.read_bytes() for path in found if path.is_file()}

    return read
