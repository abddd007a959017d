"""What precedes torch is set before torch is imported where a mode is asked for; elsewhere nothing is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pytest_difftrace.early
from difftrace.determinism import variables
from difftrace.determinism.profiles import early_rows

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
OURS = {row.name for profile in ("cpu-portable", "cuda", "rocm") for row in early_rows(profile)} | {"PYTHONHASHSEED"}

# Without the plugins that only cost time, and one that gives numpy a seed of its own.
QUIET = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio"]

Started = subprocess.CompletedProcess[str]
Start = Callable[..., Started]
Write = Callable[[str, str], None]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run a command line of Python in `tmp_path`, in an environment that nobody has prepared."""

    def run(*argv: str, stdin: str = "", **environment: str) -> Started:
        inherited = {name: value for name, value in os.environ.items() if name not in OURS and "PYTEST" not in name}
        return subprocess.run(
            [sys.executable, *argv],
            cwd=tmp_path,
            env={**inherited, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def text(name: str, content: str) -> None:
        (tmp_path / name).write_text(content, encoding="utf-8")

    return text


RESTARTED = """
import os, sys
import helper

def test_a(request):
    with open("runs", "a") as file: file.write("x")
    assert sys.flags.hash_randomization == 0
    assert os.environ["PYTHONHASHSEED"] == "0"
    assert not [name for name in os.environ if name.startswith("_DIFFTRACE")]
    assert sys.flags.dev_mode
    assert "error::DeprecationWarning" in sys.warnoptions
    assert request.config.inipath.name == "other.ini"
    assert sys.stdin.readline() == "a line\\n"
    print("said on stdout")
    print("said on stderr", file=sys.stderr)

def test_what_precedes_torch():
    from difftrace.determinism.variables import was_in_time
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "torch" not in sys.modules
    assert was_in_time("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert "HIPBLASLT_TUNING_OVERRIDE_FILE" in os.environ
"""


HELPER = """
from functools import partial
from pytest_difftrace import restart
restart.start_anew = partial(restart.start_anew, windows={})
def pytest_report_header(): return "header of helper"
"""


@pytest.mark.parametrize("windows", [False, True])
def test_pytest_is_started_anew_once_and_all_of_its_command_line_holds(
    start: Start, write: Write, tmp_path: Path, windows: bool
) -> None:
    write("test_a.py", RESTARTED)
    write("helper.py", HELPER.format(windows))
    write("other.ini", "[pytest]\ndifftrace_profile = cuda\n")
    options = ["-X", "dev", "-W", "error::DeprecationWarning"]
    done = start(
        *options,
        *["-m", "pytest", *QUIET, "-p", "helper", "-c", "other.ini", "-s"],
        stdin="a line\n",
        PYTEST_ADDOPTS="--difftrace-verify",
        HIPBLASLT_TUNING_OVERRIDE_FILE="not of this profile",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for once in ("test session starts", "header of helper", "said on stdout", "2 passed", "difftrace: mode verify"):
        assert done.stdout.count(once) == 1, done.stdout
    assert "difftrace: mode verify, policy exact, profile cuda, baselines in" in done.stdout
    assert "hash seed" not in done.stdout
    assert done.stderr == "said on stderr\n"
    assert (tmp_path / "runs").read_text(encoding="utf-8") == "x"


# Has pytest's name and does what its console script does.
CONSOLE_SCRIPT = """
import sys
import _pytest.config
sys.exit(getattr(_pytest.config, "_console_main", _pytest.config.console_main)())
"""

STATUS = """
import os, sys
def test_a():
    print("said", "by the test")
    assert (sys.flags.hash_randomization, os.getcwd() in sys.path) == (0, False)
    {}
"""


@pytest.mark.parametrize(
    ("body", "ini", "arguments", "status", "once"),
    [
        (
            "assert 'it' == 'failed'",
            "",
            ["--difftrace-record", "-q"],
            1,
            ["said by the test", "- AssertionError: assert 'it'"],
        ),
        ("raise KeyboardInterrupt", "", ["-o", "difftrace_mode=verify", "--capture=sys"], 2, ["! KeyboardInterrupt !"]),
        (None, "addopts = --difftrace-verify --capture=tee-sys", [], 5, ["no tests ran", "difftrace: mode verify"]),
    ],
)
def test_output_and_exit_status_are_those_of_the_one_run(
    start: Start,
    write: Write,
    tmp_path: Path,
    body: str | None,
    ini: str,
    arguments: list[str],
    status: int,
    once: list[str],
) -> None:
    (tmp_path / "bin").mkdir()
    write("bin/pytest", CONSOLE_SCRIPT)
    write("pytest.ini", f"[pytest]\n{ini}\n")
    if body is not None:
        write("test_a.py", STATUS.format(body))
    done = start("bin/pytest", *QUIET, "--import-mode=importlib", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert [done.stdout.count(text) for text in once] == [1] * len(once), done.stdout
    assert done.stderr == ""


STATE = """
import json, os, sys
def test_a(request):
    state = dict(os.environ), sys.flags.hash_randomization, "difftrace.determinism" in sys.modules
    with open(str(request.config.getoption("basetemp")) + ".json", "w") as file: json.dump(state, file)
"""


def test_without_a_mode_asked_for_the_environment_is_untouched(start: Start, write: Write, tmp_path: Path) -> None:
    write("test_a.py", STATE)
    states = []
    for name, options in (("without", ["-p", "no:difftrace"]), ("with", [])):
        done = start("-m", "pytest", *QUIET, f"--basetemp={name}", *options, CUBLAS_WORKSPACE_CONFIG="as it was")
        assert done.returncode == 0, done.stdout
        states.append(json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")))
    assert states[0] == states[1]
    environment, randomised, imported = states[1]
    assert environment[WORKSPACE] == "as it was"
    assert (randomised, imported) == (1, False)


SCRIPT = """
import os, pytest
print("the script runs")
before = dict(os.environ)
status = pytest.main()
assert dict(os.environ) == before
raise SystemExit(status)
"""


def test_a_script_that_calls_pytest_runs_once_and_is_told_that_the_hash_seed_is_not_in_force(
    start: Start, write: Write
) -> None:
    write("script.py", SCRIPT)
    write("test_a.py", "import os\ndef test_a(): assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'\n")
    done = start("script.py", *QUIET, "--difftrace-verify", "--difftrace-profile=cuda")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the script runs") == 1
    assert "difftrace: hash seed not in force: pytest was started by other code\n" in done.stdout


def test_a_hash_seed_of_the_users_own_is_kept(start: Start, write: Write) -> None:
    write("test_a.py", "import os, sys\ndef test_a(): assert (os.environ['PYTHONHASHSEED'], hash('a')) == ('7', {})\n")
    expected = start("-c", "print(hash('a'))", PYTHONHASHSEED="7").stdout.strip()
    write(
        "test_a.py", f"import os\ndef test_a(): assert (os.environ['PYTHONHASHSEED'], hash('a')) == ('7', {expected})\n"
    )
    done = start("-m", "pytest", *QUIET, "--difftrace-verify", PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stdout
    assert "hash seed" not in done.stdout


def test_workers_of_xdist_get_the_hash_seed_and_the_variables_from_their_controller(start: Start, write: Write) -> None:
    pytest.importorskip("xdist")
    write(
        "test_a.py",
        "import os, sys, pytest\n@pytest.mark.parametrize('i', range(4))\ndef test_a(i):\n"
        "    assert (sys.flags.hash_randomization, os.environ['CUBLAS_WORKSPACE_CONFIG']) == (0, ':4096:8')\n",
    )
    done = start("-m", "pytest", *QUIET, "-n", "2", "--difftrace-verify", "--difftrace-profile=cuda")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("4 passed") == 1
    assert "hash seed" not in done.stdout


RECORDED = """
def test_sum(llada, difftrace):
    difftrace.check(llada.generate([5, 151, 163], gen_length=8, steps=8, temperature=0.5))
"""


def test_two_fresh_processes_record_the_same_bytes(
    start: Start, write: Write, tmp_path: Path, conformance_folder: Path
) -> None:
    options = ["--difftrace-record=all", f"--difftrace-model={conformance_folder}", "--difftrace-profile=cpu-portable"]
    write("test_sum.py", RECORDED)
    recorded = []
    for _ in range(2):
        done = start("-m", "pytest", *QUIET, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "difftrace: 1 new" in done.stdout
        [file] = (tmp_path / "__difftrace__").rglob("*.json")
        recorded.append(file.read_bytes())
        file.unlink()
    assert recorded[0] == recorded[1]


def test_a_plugin_that_a_conftest_file_loads_says_that_it_came_too_late(start: Start, write: Write) -> None:
    write("conftest.py", "pytest_plugins = ['pytest_difftrace.plugin']\n")
    write("test_a.py", "def test_a(): pass\n")
    done = start("-m", "pytest", *QUIET, "--difftrace-verify", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "difftrace: hash seed not in force: the plugin was loaded by a conftest file" in done.stdout


# From here on in this process, which stands for those that pytest cannot be started anew in.


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Note the profile of each early start instead of carrying it out."""
    profiles: list[str | None] = []
    monkeypatch.setattr(pytest_difftrace.early, "start", lambda config, profile: profiles.append(profile))
    return profiles


@pytest.fixture
def _untouched() -> Iterator[None]:
    """Take what the early start sets out of the environment; nothing may be left afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OURS - {"PYTHONHASHSEED"}:
            patch.delenv(name, raising=False)
        patch.setattr(variables, "_TAKEN", {})
        yield
        assert not {name for name in OURS if name in os.environ} - {"PYTHONHASHSEED"}
        assert variables._TAKEN == {}


@pytest.mark.parametrize(
    ("ini", "arguments", "expected"),
    [
        ("", [], []),
        ("difftrace_mode = off", [], []),
        ("difftrace_profile = cpu", [], []),
        ("difftrace_mode = verify", [], [None]),
        ("difftrace_mode = off", ["--difftrace-verify"], [None]),
        ("addopts = --difftrace-record=all\ndifftrace_profile = cuda", [], ["cuda"]),
        ("difftrace_profile = cuda", ["--difftrace-record", "--difftrace-profile=cpu-portable"], ["cpu-portable"]),
        ("", ["-o", "difftrace_mode=verify", "--collect-only"], [None]),
        ("difftrace_mode = verify", ["--help"], []),
        ("difftrace_mode = verify", ["--version", "--version"], []),
        ("", ["--difftrace-verify", "--markers"], []),
        ("", ["--difftrace-verify", "--fixtures"], []),
        ("", ["--difftrace-verify", "--fixtures-per-test"], []),
    ],
)
def test_it_is_asked_for_on_the_command_line_or_in_the_ini_file_and_only_to_run_tests(
    pytester: pytest.Pytester, run_pytest, started, ini: str, arguments: list[str], expected: list[str | None]
) -> None:
    pytester.makeini(f"[pytest]\n{ini}")
    pytester.makepyfile("def test_a(): pass")
    result = run_pytest(*arguments)
    assert result.ret == pytest.ExitCode.OK
    assert started == expected


def test_a_pytest_inside_pytest_never_starts_the_outer_one_anew(
    pytester: pytest.Pytester, run_pytest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the outer pytest was started anew")

    arguments = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio", "--difftrace-verify"]
    monkeypatch.setattr(os, "execve", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "pytest", *arguments])
    monkeypatch.setattr(sys, "argv", ["pytest", *arguments])
    pytester.makepyfile("def test_a(): pass")
    # With the very arguments of the outer one, and without, which means the same to pytest.main.
    for given in (arguments, None):
        assert pytest.main(given) == pytest.ExitCode.OK


@pytest.mark.usefixtures("_untouched")
def test_variables_are_set_while_the_session_lasts(run_pytest, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import os
        def test_a():
            assert os.environ[{WORKSPACE!r}] == ":4096:8"
            assert os.environ["PYTORCH_TUNABLEOP_ENABLED"] == "0"
        """
    )
    run_pytest("--difftrace-verify", "--difftrace-profile=cuda").assert_outcomes(passed=1)


@pytest.mark.usefixtures("_untouched")
def test_what_serves_is_kept_and_what_must_not_be_set_is_taken_away(
    run_pytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    pytester.makepyfile(f"import os\ndef test_a(): assert os.environ[{WORKSPACE!r}] == ':16:8'\n")
    run_pytest("--difftrace-verify", "--difftrace-profile=cuda").assert_outcomes(passed=1)
    monkeypatch.setenv("HIPBLASLT_TUNING_OVERRIDE_FILE", "tuned.txt")
    pytester.makepyfile("import os\ndef test_a(): assert 'HIPBLASLT_TUNING_OVERRIDE_FILE' not in os.environ\n")
    run_pytest("--difftrace-verify", "--difftrace-profile=rocm-gfx942").assert_outcomes(passed=1)
    assert os.environ["HIPBLASLT_TUNING_OVERRIDE_FILE"] == "tuned.txt"


@pytest.mark.usefixtures("_untouched")
def test_what_a_test_leaves_in_the_environment_is_not_overwritten_at_the_end(
    run_pytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(f"import os\ndef test_a(): os.environ[{WORKSPACE!r}] = ':16:8'\n")
    run_pytest("--difftrace-verify", "--difftrace-profile=cuda").assert_outcomes(passed=1)
    assert os.environ.pop(WORKSPACE) == ":16:8"


def test_a_value_that_cannot_be_kept_is_a_usage_error(
    run_pytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, "plenty")
    pytester.makepyfile("def test_a(): pass")
    result = run_pytest("--difftrace-verify", "--difftrace-profile=cuda")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {WORKSPACE}='plenty' in the environment: *; set {WORKSPACE}=:4096:8 *"])
    assert os.environ[WORKSPACE] == "plenty"
    run_pytest("--difftrace-profile=cuda").assert_outcomes(passed=1)


@pytest.mark.usefixtures("_untouched")
def test_once_a_device_is_in_use_its_variables_are_left_alone(
    run_pytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    pytester.makepyfile(f"import os\ndef test_a(): assert {WORKSPACE!r} not in os.environ\n")
    run_pytest("--difftrace-verify", "--difftrace-profile=cuda").assert_outcomes(passed=1)


VERSION = """
from typing import Optional
__version__ = '2.13.0'
cuda: Optional[str] = {cuda}
git_version = 'cuda = "12"'
hip: Optional[str] = {hip}
"""


def _set_for(profile: str) -> set[str]:
    return {row.name for row in early_rows(profile) if row.value is not None}


@pytest.mark.usefixtures("_untouched")
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (VERSION.format(cuda=None, hip=None), set()),
        (VERSION.format(cuda="'12.8'", hip=None), _set_for("cuda")),
        (VERSION.format(cuda=None, hip='"6.4"'), _set_for("rocm")),
        ("raise SystemExit('imported')\ncuda = '12.8'", _set_for("cuda")),
        (None, set()),
    ],
)
def test_the_profile_is_guessed_by_what_torch_is_built_for_without_importing_it(
    run_pytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, version: str | None, expected: set[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    pytester.mkpydir("torch")
    (pytester.path / "torch" / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    if version is not None:
        (pytester.path / "torch" / "version.py").write_text(version, encoding="utf-8")
    monkeypatch.syspath_prepend(str(pytester.path))
    pytester.makepyfile(
        f"""
        import os, sys
        from difftrace.determinism.variables import was_in_time
        def test_a():
            assert {{name for name in {sorted(OURS)!r} if name in os.environ}} - {{"PYTHONHASHSEED"}} == {expected!r}
            assert all(was_in_time(name, os.environ[name]) for name in {expected!r})
            assert "torch" not in sys.modules
        """
    )
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)
