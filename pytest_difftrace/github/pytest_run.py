"""The run of pytest itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from pytest_difftrace.github.errors import NOT_INSTALLED, ActionError
from pytest_difftrace.github.inputs import Inputs

REPORT: Final = "report.json"
HTML: Final = "report.html"
JUNIT: Final = "junit.xml"

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
        raise ActionError(NOT_INSTALLED.format("".join(last) or "no message"))
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


def failed_tests(junit: Path) -> list[str]:
    """Return the tests that failed, in or around their call, by the JUnit file; none where it cannot be read."""
    try:
        cases = ElementTree.parse(junit).iter("testcase")  # noqa: S314 - who writes it runs code here anyway
    except (OSError, ElementTree.ParseError):
        return []
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def run(words: Sequence[str], environment: Mapping[str, str], workspace: Path) -> int:
    """Run the command in the workspace and return its exit status.

    What the runner ends this process with when a job is cancelled goes on to pytest, which then writes its report and
    lets go of the device.
    """
    with subprocess.Popen(words, env=dict(environment), cwd=workspace) as process:  # noqa: S603 - no shell
        before = {
            number: signal.signal(number, lambda received, _: process.send_signal(received))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
