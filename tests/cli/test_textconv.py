"""Git shows trajectories as words, with the two lines that README and help name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrace.core.baseline import load, save

Command = Callable[..., tuple[int, str, str]]
Git = Callable[..., str]

BASELINE = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart/test_sum.json"


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Run git in a new repository that is set up as the help of `show` says, with one baseline committed."""
    folder = tmp_path / "repository"
    baseline = folder / "tests/__difftrace__/test_sum/test_sum.json"
    baseline.parent.mkdir(parents=True)
    shutil.copy(BASELINE, baseline)
    shim = tmp_path / "bin" / "difftrace"
    shim.parent.mkdir()
    program = "from difftrace.cli import main; main()"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{program}" "$@"\n')
    shim.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, check=False, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("init", "-q")
    for line in setup_lines():
        done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    run("add", ".")
    run("commit", "-qm", "first")
    return run


def setup_lines() -> list[str]:
    from difftrace.cli.show import command

    found = [line.strip() for line in (command.help or "").splitlines() if re.match(r" +(echo|git config) ", line)]
    assert len(found) == 2
    return found


def rewrite(path: Path, token: int) -> None:
    """Record another token at step 7, position 11."""
    golden = load(path)
    record = golden.sequences[0]
    tokens = record.trajectory.tokens.copy()
    tokens[7] = token
    changed = replace(record, trajectory=replace(record.trajectory, tokens=tokens), evidence=None, text="45")
    save(path, replace(golden, sequences=(changed,), pieces={**golden.pieces, token: "5"}))


@pytest.mark.skipif(shutil.which("git") is None or os.name == "nt", reason="needs git and a POSIX shell")
def test_git_shows_what_changed_in_words(git: Git, tmp_path: Path) -> None:
    path = tmp_path / "repository/tests/__difftrace__/test_sum/test_sum.json"
    rewrite(path, 26)
    changed = [line for line in git("diff").splitlines() if re.match(r"[+-](?![+-])", line)]
    assert "-  text | 42" in changed
    assert "+  text | 45" in changed
    assert "-  step 7, position 11: 2 (23)" in changed
    assert "+  step 7, position 11: 5 (26)" in changed
    # Beside those the digests of baseline, sequence and evidence.
    assert len(changed) == 10
    assert not any("decisions" in line for line in changed)
    path.write_text("<<<<<<< HEAD\n::error::\x1b[31m\n")
    conflict = git("diff")
    assert "+cannot be shown as a trajectory: is not complete JSON" in conflict
    assert "+<<<<<<< HEAD" in conflict
    git("checkout", "-q", "--", ".")
    rewrite(path, 26)
    git("commit", "-qam", "second")
    assert "+  step 7, position 11: 5 (26)" in git("log", "-p", "-1")


def test_the_text_depends_on_the_file_alone(
    difftrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "other.json"
    shutil.copy(BASELINE, copy)
    status, first, err = difftrace("show", "--textconv", BASELINE)
    assert (status, err) == (0, "")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "")
    assert difftrace("show", "--textconv", copy)[1] == first
    header = first.partition("\n\n")[0].splitlines()
    assert header == sorted(header)


def test_a_file_that_is_not_there_is_an_error(difftrace: Command, tmp_path: Path) -> None:
    assert difftrace("show", "--textconv", tmp_path / "absent.json")[0] == 2
