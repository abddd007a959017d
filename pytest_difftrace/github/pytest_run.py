"""The run of pytest itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from difftrace.core.text import printable
from pytest_difftrace.github.errors import NOT_INSTALLED, ActionError
from pytest_difftrace.github.inputs import Inputs

REPORT: Final = "report.json"
HTML: Final = "report.html"
JUNIT: Final = "junit.xml"

# Bytes of standard error, and seconds to wait for its end once pytest has ended.
_KEPT: Final = 1 << 16
_PATIENCE: Final = 2.0
_HTML_OPTION: Final = "--difftrace-html"


def known_options(python: str, environment: Mapping[str, str], workspace: Path) -> str:
    """Return what pytest tells of its options.

    Raises:
        ActionError: there is no pytest or no plugin.
    """
    # Neither settings nor conftest files: whatever they import, the options are the same.
    done = subprocess.run(  # noqa: S603 - our own words
        [python, "-m", "pytest", "--help", "--noconftest", "-c", os.devnull, "--rootdir", str(workspace)],
        env=dict(environment),
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    if "--difftrace-verify" not in done.stdout:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        reason = f"its plugin is not installed for {python}" if done.returncode == 0 else "".join(last) or "no message"
        raise ActionError(NOT_INSTALLED.format(printable(reason)))
    return done.stdout


def command(python: str, inputs: Inputs, results: Path, known: str) -> list[str]:
    """Return the command line that does what `inputs` ask for; what the workflow adds comes last and counts."""
    words = [python, "-m", "pytest", f"--difftrace-{inputs.mode}", f"--difftrace-results={results}"]
    words.append(f"--junitxml={results / JUNIT}")
    if _HTML_OPTION in known:
        words.append(f"{_HTML_OPTION}={results / HTML}")
    for name, value in (
        ("policy", inputs.policy),
        ("strategy", inputs.strategy),
        ("fail-on", ",".join(inputs.fail_on.replace(",", " ").split())),
        ("platform-key", inputs.platform_key),
        ("profile", inputs.profile),
        ("model", inputs.model),
    ):
        if value:
            words.append(f"--difftrace-{name}={value}")
    return [*words, *inputs.pytest_args, *inputs.paths]


@dataclass(frozen=True)
class Ended:
    """How pytest ended: its exit status, negative for a signal, and the end of what it wrote to standard error."""

    status: int
    said: str


def run(words: Sequence[str], environment: Mapping[str, str], workspace: Path) -> Ended:
    """Run the command in the workspace and return how it ended.

    What the runner ends this process with when a job is cancelled goes on to pytest, which then writes its report and
    lets go of the device. Its standard error is passed on as it comes.
    """
    reading, writing = os.pipe()
    said = bytearray()
    reader = threading.Thread(target=_pass_on, args=(reading, said), daemon=True)
    try:
        process = subprocess.Popen(words, env=dict(environment), cwd=workspace, stderr=writing)  # noqa: S603 - no shell
    finally:
        os.close(writing)
        reader.start()
    with process:
        before = {
            number: signal.signal(number, lambda received, _: process.send_signal(received))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    # What a test left running may hold it open.
    reader.join(_PATIENCE)
    return Ended(status, bytes(said).decode(errors="replace"))


def _pass_on(reading: int, said: bytearray) -> None:
    """Write what comes to this process's standard error, and keep the end of it in `said`."""
    with open(reading, "rb", buffering=0) as stream:
        while chunk := stream.read(1 << 16):
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            said += chunk
            del said[:-_KEPT]
