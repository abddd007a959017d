"""Programs that the pages name, run in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from documents.reader import Reader

# What pytester's fixture, and the inner pytest, would forget again; torch and numpy cannot be imported twice.
_ONCE = (
    "torch",
    "difftrace.cli",
    "difftrace.capture.registry",
    "difftrace.core.schemas",
    "difftrace.models",
    "difftrace.store",
    "difftrace.verification.bisect",
    "difftrace.verification.forced",
    "difftrace.verification.verify",
    "pytest_difftrace.bisecting",
    "pytest_difftrace.checker",
    "pytest_difftrace.early",
    "pytest_difftrace.recording",
)
_QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")


@pytest.fixture(scope="session")
def imported() -> None:
    """Import what pages need once, before any pytester takes stock of what is there."""
    for name in _ONCE:
        importlib.import_module(name)


@pytest.fixture
def reader(
    imported: None,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[], Reader]:
    """Return a reader who has an empty folder."""
    from difftrace import cli

    monkeypatch.setenv("COLUMNS", "100")
    # What is meant for the outer pytest, the inner one would take for its own.
    for name in ("PYTEST_ADDOPTS", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    def difftrace(arguments: list[str]) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["difftrace", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    def inner_pytest(arguments: list[str]) -> tuple[int, str]:
        done = pytester.runpytest_inprocess(*_QUIET, *arguments)
        capsys.readouterr()
        return int(done.ret), "\n".join([*done.outlines, *done.errlines]) + "\n"

    def python(arguments: list[str]) -> tuple[int, str]:
        assert arguments[:2] == ["-m", "pytest"], f"python {arguments} is not run in this process"
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(pytester.path))
            return inner_pytest(arguments[2:])

    return lambda: Reader(pytester.path, {"difftrace": difftrace, "pytest": inner_pytest, "python": python})


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds README.md and docs/."""
    return Path(__file__).parents[2]
