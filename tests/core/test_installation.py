"""What is told of an installation names what can change a run, and hides what could name a person."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from difftrace.core.ini_settings import ini_settings
from difftrace.core.installation import git_state, variables
from difftrace.core.redaction import redacted


def test_variables_are_told_if_they_can_change_a_run_and_hold_no_path() -> None:
    given = {
        "OMP_NUM_THREADS": "4",
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "DIFFTRACE_CACHE_DIR": "/home/anna/cache",
        "TORCH_HOME": "C:\\Users\\anna",
        "HF_TOKEN": "hf_abcdef",
        "PATH": "/usr/bin",
        "USER": "anna",
        "DIFFTRACE_LONG": "x" * 500,
    }
    assert variables(given) == {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "DIFFTRACE_CACHE_DIR": "set",
        "DIFFTRACE_LONG": "set",
        "OMP_NUM_THREADS": "4",
        "PYTHONHASHSEED": "0",
        "TORCH_HOME": "set",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/anna/x.py", "<path>"),
        ("CXX=/opt/rh/c++, next", "CXX=<path>, next"),
        ("-I/home/anna/include -O2", "-I<path> -O2"),
        ("key:/home/anna", "key:<path>"),
        ("~/x ~anna/y", "<path> <path>"),
        ("C:\\Users\\anna\\x", "<path>"),
        ("C:/Users/anna", "<path>"),
        ('File "/home/anna/y.so"', 'File "<path>"'),
        ("https://pytorch.org/docs", "https://pytorch.org/docs"),
        ("MI250X/MI250, 1/2", "MI250X/MI250, 1/2"),
        ("-D_A=1 -Wl,-z", "-D_A=1 -Wl,-z"),
    ],
)
def test_paths_are_hidden_and_what_only_looks_alike_is_not(text: str, shown: str) -> None:
    assert redacted({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


def test_the_hosts_name_is_hidden_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "gpu-7")
    assert redacted("built on GPU-7 (gpu-70)") == "built on <host> (gpu-70)"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_tells_the_commit_and_whether_anything_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    assert git_state(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", ".")
    git("commit", "-qm", "a")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a").write_text("22")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": True}


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None


def test_settings_are_those_of_the_file_pytest_would_take(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "tests"
    inner.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\ndifftrace_policy = exact\n")
    setup = tmp_path / "project" / "setup.cfg"
    setup.write_text("[metadata]\nname = x\n")
    assert ini_settings(inner) == {"file": "pytest.ini", "options": {"difftrace_policy": "exact"}}
    setup.write_text("[tool:pytest]\ndifftrace_mode = off\naddopts = -q\ndifftrace_fail_on =\n    DRIFT\n    RNG\n")
    found = {"difftrace_mode": "off", "difftrace_fail_on": "DRIFT RNG"}
    assert ini_settings(inner) == {"file": "setup.cfg", "options": found}
    (tmp_path / "project" / "pytest.ini").write_text("")
    assert ini_settings(inner) == {"file": "pytest.ini", "options": {}}
    (tmp_path / "project" / "pytest.ini").write_text("no section\n")
    assert ini_settings(inner) == {"file": "pytest.ini", "options": None}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="has no reader of TOML")
def test_settings_are_found_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.pytest.ini_options]\ndifftrace_policy = 'text'\ndifftrace_per_platform = true\n")
    options = {"difftrace_per_platform": "True", "difftrace_policy": "text"}
    assert ini_settings(tmp_path) == {"file": "pyproject.toml", "options": options}
    file.write_text("[tool.pytest]\ndifftrace_allow = ['DRIFT', 'RNG']\n")
    assert ini_settings(tmp_path) == {"file": "pyproject.toml", "options": {"difftrace_allow": "DRIFT RNG"}}
    file.write_text("[tool")
    assert ini_settings(tmp_path) == {"file": "pyproject.toml", "options": None}
