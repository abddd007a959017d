"""The `difftrace` command: exit statuses a script can rely on, one line for whatever goes wrong."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace import __version__
from difftrace.core.baseline import TestId, save
from difftrace.core.run import Run
from difftrace.core.schemas import violation
from difftrace.core.trajectory import Trajectory

# Runs the command line and returns (exit status, stdout, stderr).
Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    """A valid baseline where a test module would have it."""
    trajectory = Trajectory(prompt=[1], initial=[1, 9, 9], steps=[0, 1], positions=[2, 1], tokens=[5, 6], num_steps=2)
    path = tmp_path / "__difftrace__" / "test_sum" / "test_sum.json"
    path.parent.mkdir(parents=True)
    save(path, Run((trajectory,)).to_baseline(TestId("test_sum.py", "test_sum", None)))
    return path


@pytest.fixture
def broken(baseline: Path) -> Path:
    """A truncated baseline beside it."""
    path = baseline.with_name("test_broken.json")
    path.write_bytes(baseline.read_bytes()[:-20])
    return path


def test_a_valid_baseline_exits_with_0(difftrace: Command, baseline: Path) -> None:
    assert difftrace("validate", baseline) == (0, "1 checked, 0 invalid\n", "")


def test_an_invalid_one_exits_with_1_and_is_named(difftrace: Command, broken: Path) -> None:
    status, out, _ = difftrace("validate", broken)
    assert status == 1
    problem, summary = out.splitlines()
    assert problem.startswith(str(broken))
    assert summary == "1 checked, 1 invalid"


def test_a_folder_is_searched_for_baselines_and_nothing_else(
    difftrace: Command, baseline: Path, broken: Path, tmp_path: Path
) -> None:
    (tmp_path / "package.json").write_text("not a baseline")
    status, out, _ = difftrace("validate", tmp_path)
    assert status == 1
    assert out.splitlines()[-1] == "2 checked, 1 invalid"
    assert "package.json" not in out


def test_json_output_is_one_object(difftrace: Command, baseline: Path, broken: Path) -> None:
    status, out, _ = difftrace("validate", "--json", baseline, broken)
    answer = json.loads(out)
    assert status == 1
    assert answer["checked"] == 2
    assert list(answer["problems"]) == [str(broken)]
    status, out, _ = difftrace("validate", "--json", baseline)
    assert status == 0
    assert (json.loads(out)["checked"], json.loads(out)["problems"]) == (1, {})
    assert violation("validation", answer) is violation("validation", json.loads(out)) is None


def test_every_problem_of_a_file_is_listed(difftrace: Command, baseline: Path) -> None:
    document = json.loads(baseline.read_text())
    document["pieces"] = {"1": 1, "2": 2, "x": "y"}
    document["digest"] = "none"
    baseline.write_text(json.dumps(document))
    status, out, _ = difftrace("validate", baseline)
    assert status == 1
    *problems, summary = out.splitlines()
    assert all(line.startswith(f"{baseline}: $.") for line in problems)
    assert {"$.digest", "$.pieces"} <= {
        line.split()[1].partition(":")[0].partition("[")[0].partition(".1")[0].partition(".2")[0] for line in problems
    }
    assert len(problems) >= 4
    assert summary == "1 checked, 1 invalid"


def test_a_file_that_is_given_twice_counts_once(difftrace: Command, baseline: Path, tmp_path: Path) -> None:
    assert difftrace("validate", baseline, tmp_path, baseline)[1] == "1 checked, 0 invalid\n"


@pytest.mark.parametrize("arguments", [("validate",), ("validate", "absent.json"), ("nonsense",), ("--nonsense",)])
def test_what_cannot_run_exits_with_2(difftrace: Command, arguments: tuple[str, ...]) -> None:
    status, out, err = difftrace(*arguments)
    assert (status, out) == (2, "")
    assert err


def test_a_folder_without_baselines_is_no_success(difftrace: Command, tmp_path: Path) -> None:
    status, out, err = difftrace("validate", tmp_path)
    assert (status, out) == (2, "")
    assert "nothing to validate" in err


def test_an_unexpected_exception_exits_with_2_and_one_line(
    difftrace: Command, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> None:
        raise MemoryError("too\nmuch \x1b[31m")

    monkeypatch.setattr(importlib.import_module("difftrace.cli.validate"), "load", load)
    status, _, err = difftrace("validate", baseline)
    assert status == 2
    assert err.startswith("difftrace: unexpected MemoryError: too")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_a_full_disk_below_the_output_is_told_in_one_line(baseline: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    program = "import sys; from difftrace import cli; sys.argv = ['difftrace', *sys.argv[1:]]; cli.main()"
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-c", program, "validate", str(baseline)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "difftrace: could not read or write: [Errno 28] No space left on device\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_among_baselines_is_not_waited_for(difftrace: Command, baseline: Path, tmp_path: Path) -> None:
    os.mkfifo(baseline.parent / "pipe.json")
    assert difftrace("validate", tmp_path)[:2] == (0, "1 checked, 0 invalid\n")


def test_an_interrupt_exits_with_2_because_1_means_a_difference(
    difftrace: Command, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("difftrace.cli.validate"), "load", interrupted)
    status, out, err = difftrace("validate", baseline)
    assert (status, out) == (2, "")
    assert err.strip() == "difftrace: interrupted"


def test_what_was_typed_is_defused_in_usage_errors(difftrace: Command) -> None:
    for arguments in (("show", "x\x1b[31m\n::error::"), ("error\n::error::\x1b[31m",), ("show", "--\x1b[31m")):
        status, _, err = difftrace(*arguments)
        assert status == 2
        assert "\x1b" not in err
        assert not any(line.startswith("::") for line in err.splitlines())


def test_a_stream_that_lacks_a_character_shows_its_escape(baseline: Path) -> None:
    command = [sys.executable, "-c", "from difftrace.cli import main; main()", "replay", str(baseline), "--step", "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, rb"\u27e81\u27e9\u2591\u2591"), done.stderr


def test_a_hostile_file_name_reaches_the_terminal_defused(difftrace: Command, baseline: Path) -> None:
    hostile = baseline.with_name("x\x1b[31m\n::error::.json")
    hostile.write_text("{}")
    _, out, _ = difftrace("validate", hostile)
    assert "\x1b" not in out
    assert not any(line.startswith("::") for line in out.splitlines())


def test_help_lists_the_commands_and_the_exit_statuses(difftrace: Command) -> None:
    status, out, _ = difftrace("--help")
    assert status == 0
    assert "validate" in out
    assert "0 same or valid, 1 diverged or invalid, 2 could not run" in " ".join(out.split())


def test_the_version_is_the_packages(difftrace: Command) -> None:
    assert difftrace("--version") == (0, f"difftrace, version {__version__}\n", "")


def test_validating_imports_neither_torch_nor_transformers(baseline: Path) -> None:
    program = (
        "import sys\n"
        "from difftrace.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'safetensors', 'pytest'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, "validate", str(baseline)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 checked, 0 invalid\n[]\n"), done.stderr
