"""When pytest is started anew for the hash seed, and when it must not be."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_difftrace import restart
from pytest_difftrace.restart import GUARD, Process, Restart, Stay, decide, pytest_arguments, start_anew

ARGUMENTS = ("--difftrace-verify", "tests")
FROM_PYTEST = ("_pytest.config.main", "_pytest.config._prepareconfig", "pluggy._callers._multicall")
SCRIPT = ("__main__.<module>", "_pytest.config.console_main", *FROM_PYTEST, "pytest_difftrace.early.start")
MODULE = ("runpy._run_module_as_main", "runpy._run_code", *SCRIPT)

# `python -m pytest --difftrace-verify tests`, in which nothing else has a part.
PYTEST = Process(
    executable="/venv/bin/python",
    orig_argv=("python", "-m", "pytest", *ARGUMENTS),
    arguments=ARGUMENTS,
    invocation=ARGUMENTS,
    stack=MODULE,
    modules=frozenset({"bdb", "pdb", "pytest", "coverage"}),
    environment={"PATH": "/bin", "PYTEST_CURRENT_TEST": "of the pytest that started this one"},
    seed_fixed=False,
    restarted=False,
    ignores_environment=False,
    traced=False,
    monitors=(),
    measured=False,
)


@pytest.mark.parametrize(
    ("options", "stack"),
    [
        ([], MODULE),
        (["-X", "dev", "-W", "error", "-B"], MODULE),
        ([], (*MODULE[:3], "_pytest.config._console_main", "_pytest.config._main", *MODULE[5:])),
    ],
)
def test_pytest_itself_is_started_anew_with_its_whole_command_line(options: list[str], stack: tuple[str, ...]) -> None:
    process = replace(PYTEST, orig_argv=("python", *options, "-m", "pytest", *ARGUMENTS), stack=stack)
    assert decide(process) == Restart(("/venv/bin/python", *options, "-m", "pytest", *ARGUMENTS))


def test_a_console_script_is_started_anew_too() -> None:
    process = replace(PYTEST, orig_argv=("/venv/bin/python", "/venv/bin/pytest", *ARGUMENTS), stack=SCRIPT)
    assert decide(process) == Restart(("/venv/bin/python", "/venv/bin/pytest", *ARGUMENTS))


@pytest.mark.parametrize("changes", [{}, {"restarted": True}, {"traced": True}, {"orig_argv": ("python", "x.py")}])
def test_where_the_seed_is_fixed_nothing_is_done_and_nothing_is_wrong(changes: dict[str, Any]) -> None:
    assert decide(replace(PYTEST, seed_fixed=True, **changes)) == Stay(None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"restarted": True}, "pytest was started anew, but strings hash at random all the same"),
        ({"ignores_environment": True}, "Python ignores PYTHONHASHSEED under -E and -I"),
        ({"measured": True}, "coverage is being measured"),
        ({"modules": frozenset({"pydevd"})}, "a debugger is attached"),
        ({"modules": frozenset({"_pydevd_bundle"})}, "a debugger is attached"),
        ({"modules": frozenset({"debugpy"})}, "a debugger is attached"),
        ({"traced": True}, "a debugger or profiler is attached"),
        ({"monitors": ("coverage.py", "other")}, "coverage.py, other is watching"),
        ({"modules": frozenset({"vscode_pytest"})}, "an IDE runs pytest"),
        ({"environment": {"PYCHARM_HOSTED": "1"}}, "an IDE runs pytest"),
    ],
)
def test_who_watches_the_process_is_not_left_behind(changes: dict[str, Any], reason: str) -> None:
    assert decide(replace(PYTEST, **changes)) == Stay(reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"executable": ""},
        # A script, also one by pytest's name, an interactive session, standard input, a worker of xdist.
        {"orig_argv": ("python", "run_tests.py", *ARGUMENTS)},
        {"orig_argv": ("python", "-c", "import pytest; pytest.main()", *ARGUMENTS)},
        {"orig_argv": ("python", "-c", "import sys;exec(eval(sys.stdin.readline()))")},
        {"orig_argv": ("python",)},
        {"orig_argv": ("python", "-")},
        {"orig_argv": ("python", "-m", "coverage", "run", "-m", "pytest", *ARGUMENTS)},
        {"orig_argv": ("python", "-m", "pdb", "-m", "pytest", *ARGUMENTS)},
        {"orig_argv": ()},
        {"stack": ("__main__.<module>", "_pytest.config.main", *FROM_PYTEST)},
        {"stack": ("__main__.<module>", "__main__.run", "_pytest.config.console_main", *FROM_PYTEST)},
        # pytest.main in a test, a fixture, a plugin, a thread.
        {"stack": (*MODULE, "_pytest.runner.call", "test_x.test_a", "_pytest.config.main", *FROM_PYTEST)},
        {"stack": (*MODULE, "someplugin.pytest_configure", *FROM_PYTEST)},
        {"stack": ("threading._bootstrap", "threading.run", "_pytest.config.main", *FROM_PYTEST)},
        {"stack": ("__main__.<module>", "pydev_runner.run", "_pytest.config.console_main", *FROM_PYTEST)},
        {"stack": ()},
        # pytest.main with arguments of its own, or a changed command line.
        {"invocation": ("--difftrace-verify",)},
        {"arguments": ("--difftrace-verify",)},
        {"arguments": ("tests",), "invocation": ("tests",)},
    ],
)
def test_whatever_is_not_certainly_pytest_alone_is_never_run_again(changes: dict[str, Any]) -> None:
    assert decide(replace(PYTEST, **changes)) == Stay("pytest was started by other code")


@pytest.mark.parametrize(
    "before",
    [
        "-m pytest",
        "-m py.test",
        "-mpytest",
        "-Bm pytest",
        "-OO -s -u -mpytest",
        "-X dev -W error::DeprecationWarning -m pytest",
        "-Xdev -Wignore -bb -m pytest",
        "-uX importtime -m pytest",
        "-W m -X c -m pytest",
        "--check-hash-based-pycs always -m pytest",
        "/usr/bin/pytest",
        "-s /usr/bin/pytest-3",
        "-I py.test",
        "-X dev -- /venv/bin/pytest",
        "C:\\venv\\Scripts\\pytest.exe",
        "C:\\venv\\Scripts\\PYTEST.EXE",
        "C:\\venv\\Scripts\\pytest-script.py",
    ],
)
@pytest.mark.parametrize("arguments", [(), ("-m", "slow", "-c", "x.ini", "-p", "no:x", "-", "--", "a b")])
def test_the_interpreters_options_are_told_from_pytests(before: str, arguments: tuple[str, ...]) -> None:
    assert pytest_arguments(["python", *before.split(" "), *arguments]) == arguments


@pytest.mark.parametrize(
    "command",
    [
        "",
        "-",
        "-i",
        "-m",
        "-X",
        "--",
        "--version -m pytest",
        "-c pytest",
        "-cpytest",
        "-Bc pytest",
        "-X pytest",
        "-W pytest",
        "-m pytest_cov",
        "-m unittest",
        "-X dev script.py pytest",
        "-- script.py",
        "mypytest",
        "pytest.py",
        "/pytest/run",
        "pytest-xdist",
        "--check-hash-based-pycs pytest",
    ],
)
def test_other_command_lines_are_not_pytests(command: str) -> None:
    assert pytest_arguments(["pytest", *filter(None, command.split(" ")), "tests"][: 1 + len(command.split())]) is None


def test_it_takes_this_processs_place_with_its_output_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced: list[object] = []
    flushed: list[str] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: replaced.append(arguments))
    monkeypatch.setattr(sys.stdout, "flush", lambda: flushed.append("stdout"))
    monkeypatch.setattr(sys, "stderr", None)
    start_anew(("/python", "-m", "pytest"), {GUARD: "1"}, windows=False)
    assert replaced == [("/python", ["/python", "-m", "pytest"], {GUARD: "1"})]
    assert flushed == ["stdout"]


@pytest.mark.parametrize("windows", [False, True])
def test_a_python_that_cannot_be_started_is_a_reason_to_stay(tmp_path: Path, windows: bool) -> None:
    problem = start_anew((str(tmp_path / "python"),), {}, windows=windows)
    assert problem == "Python could not be started anew (No such file or directory)"


def test_on_windows_a_child_runs_and_its_status_is_passed_on() -> None:
    program = f"import os, sys; sys.exit(7 if os.environ.pop({GUARD!r}) == '1' else 1)"
    with pytest.raises(SystemExit) as ended:
        start_anew((sys.executable, "-c", program), {**os.environ, GUARD: "1"}, windows=True)
    assert ended.value.code == 7


def test_on_windows_an_interrupt_is_left_to_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    class Child:
        waits = 0

        def __init__(self, *arguments: object, **keywords: object) -> None: ...

        def __enter__(self) -> Child:
            return self

        def __exit__(self, *error: object) -> None: ...

        def wait(self) -> int:
            Child.waits += 1
            if Child.waits == 1:
                raise KeyboardInterrupt
            return 2

    monkeypatch.setattr(restart.subprocess, "Popen", Child)
    with pytest.raises(SystemExit) as ended:
        start_anew(("python",), {}, windows=True)
    assert (ended.value.code, Child.waits) == (2, 2)


def _config(**known: object) -> Any:
    parameters = SimpleNamespace(args=("a", Path("b")))
    return SimpleNamespace(invocation_params=parameters, known_args_namespace=SimpleNamespace(**known))


def test_what_watches_this_process_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = SimpleNamespace(get_tool={1: "coverage.py"}.get)
    monkeypatch.setattr(sys, "monitoring", tools, raising=False)
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(sys, "getprofile", lambda: print)
    process = restart.this_process(_config(), restarted=False, seed_fixed=False)
    assert (process.monitors, process.traced, process.invocation) == (("coverage.py",), True, ("a", "b"))
    assert process.stack[-1] == "pytest_difftrace.restart.this_process"
    monkeypatch.delattr(sys, "monitoring")
    monkeypatch.setattr(sys, "getprofile", lambda: None)
    process = restart.this_process(_config(), restarted=False, seed_fixed=False)
    assert (process.monitors, process.traced) == ((), False)
    assert isinstance(decide(process), Stay)


@pytest.mark.parametrize(
    ("current", "known", "measured"),
    [
        (None, {}, False),
        (None, {"cov_source": []}, False),
        (object(), {}, True),
        (None, {"cov_source": ["src"], "no_cov": False}, True),
        (None, {"cov_source": ["src"], "no_cov": True}, False),
    ],
)
def test_coverage_counts_where_it_measures(
    monkeypatch: pytest.MonkeyPatch, current: object, known: dict[str, object], measured: bool
) -> None:
    coverage = SimpleNamespace(Coverage=SimpleNamespace(current=lambda: current))
    monkeypatch.setitem(sys.modules, "coverage", coverage)  # type: ignore[arg-type]
    assert restart.this_process(_config(**known), restarted=False, seed_fixed=False).measured is measured
