"""Programs that are one rank of several each. They meet in a file, so that no port is taken."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "rank.py"

# What each rank's scenes came to, by name.
Scenes = list[dict[str, str]]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Scenes]]:
    """Let as many ranks as asked for go through scenes of `programs/rank.py`, and return what they came to."""
    started: list[subprocess.Popen[str]] = []

    def run(size: int, *scenes: str) -> Scenes:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        for rank in range(size):
            words = [sys.executable, "-W", "error", PROGRAM, tmp_path / "rendezvous", rank, size, *scenes]
            started.append(
                subprocess.Popen(
                    list(map(str, words)),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment,
                    start_new_session=True,
                )
            )
        found = []
        for process in started:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            found.append(dict(json.loads(line) for line in out.splitlines()))
        return found

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
