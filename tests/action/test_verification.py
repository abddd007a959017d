"""A run from its inputs to outputs, annotations and summary, where tests do not end as they should."""

from __future__ import annotations

import html
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from difftrace.reports.markdown_text import code
from pytest_difftrace.github.__main__ import main
from pytest_difftrace.github.inputs import PREFIX

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = {
    "MODE": "verify",
    "PYTHON": "python3",
    "INSTALL": "none",
    "RESULTS_DIR": ".difftrace",
    "UPLOAD_ARTIFACT": "true",
    "ARTIFACT_NAME": "difftrace-results",
    "FAIL_ON_DIVERGENCE": "true",
    "SUMMARY": "true",
}
PRELUDE = """
import os, signal
from difftrace import Trajectory
def traj(*tokens):
    count = len(tokens)
    return Trajectory(prompt=[1, 2], initial=[1, 2] + [99] * count, steps=list(range(count)),
                      positions=list(range(2, 2 + count)), tokens=list(tokens), num_steps=count)
"""


@dataclass(frozen=True)
class Told:
    """What the runner hears of a run: exit status, standard output and summary."""

    status: int
    out: str
    summary: str


Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the action's second process on a suite, given as the text of its test file, with inputs by name."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:xdist\n", encoding="utf-8")

    def start(body: str, **given: str) -> Told:
        (workspace / "test_x.py").write_text(PRELUDE + body, encoding="utf-8")
        values = {
            **{PREFIX + name: value for name, value in (DEFAULTS | given).items()},
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "GITHUB_OUTPUT": str(tmp_path / "outputs"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        }
        for name in [name for name in os.environ if name.startswith("PYTEST_")]:
            monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)
        try:
            status = main(["run"])
        finally:
            signal.signal(signal.SIGTERM, before)
        summary = tmp_path / "summary"
        told = Told(status, capfd.readouterr().out, summary.read_text(encoding="utf-8") if summary.exists() else "")
        summary.unlink(missing_ok=True)
        return told

    return start


def errors(told: Told) -> list[str]:
    """Return the errors that a runner takes note of: those at the beginning of a line."""
    prefix = "::error title=DiffTrace::"
    return [line.removeprefix(prefix) for line in told.out.splitlines() if line.startswith(prefix)]


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("os._exit(3)", "pytest failed by itself, or a test ended its process with status 3"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "pytest was killed by SIGKILL (out of memory?) before it had finished",
        ),
    ],
)
def test_a_test_that_ends_the_process_of_pytest_is_told_on_a_line_of_its_own_and_in_the_summary(run, end, problem):
    told = run(f"def test_a(difftrace): difftrace.check(traj(3))\ndef test_b(): {end}\n", MODE="record")
    assert told.status == 2
    assert [one.partition(";")[0] for one in errors(told)] == [problem]
    assert "DiffTrace: error" in told.summary
    assert problem in html.unescape(told.summary)


def test_tests_that_fail_beside_checks_that_pass_are_listed_in_the_summary(run):
    told = run(
        "def test_a(difftrace): difftrace.check(traj(3))\ndef test_b(): assert 0\ndef test_c(): assert 0\n",
        MODE="record",
    )
    [problem] = errors(told)
    assert problem.startswith(
        "2 tests, such as test_x.py::test_b, failed although no check did; 1 recorded baseline is"
    )
    assert "not handed on" in html.unescape(told.summary)
    summary = told.summary.partition("## DiffTrace: error")[2]
    assert code("failed: test_x.py::test_b") in summary
    assert code("failed: test_x.py::test_c") in summary
    assert "test_a" not in summary


def test_a_test_file_that_cannot_be_imported_and_a_path_that_is_not_there_are_named(run):
    told = run("import no_such_module_anywhere\n")
    assert errors(told) == ["the test file test_x could not be imported; see the log"]
    problem = "pytest refused its command line or settings: file or directory not found: nowhere"
    told = run("", PATHS="nowhere")
    assert errors(told) == [problem]
    assert code(problem) in told.summary
