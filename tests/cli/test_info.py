"""`difftrace info`: what a bug report needs, and nothing that names its sender."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrace import __version__
from difftrace.core.schemas import violation

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A folder below another one's configuration has that.
    (tmp_path / "pytest.ini").write_text("[pytest]\ndifftrace_policy = near-tie\ndifftrace_model = /home/anna/model\n")
    monkeypatch.chdir(tmp_path)


def document(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    assert violation("info", found) is None
    return found


def test_json_has_versions_threads_plugins_settings_and_torchs_build(difftrace: Command) -> None:
    import torch

    status, out, err = difftrace("info", "--json")
    found = document(out)
    assert (status, err) == (0, "")
    assert found["difftrace"]["version"] == __version__
    assert found["python"]["version"] == platform.python_version()
    assert found["packages"]["pytest"] == pytest.__version__
    assert "pytest-difftrace" in found["pytest_plugins"]
    assert found["torch"]["version"] == torch.__version__
    assert found["torch"]["threads"] == torch.get_num_threads()
    assert found["environment_variables"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]
    assert found["settings"] == {
        "file": "pytest.ini",
        "options": {"difftrace_model": "<path>", "difftrace_policy": "near-tie"},
    }
    assert found["git"] is None


def test_people_get_the_same_as_lines(difftrace: Command) -> None:
    status, out, err = difftrace("info")
    assert (status, err) == (0, "")
    for title in ("difftrace:", "python:", "platform:", "threads:", "pytest plugins:", "torch:", "settings:"):
        assert title in out.splitlines()
    assert f"  version {__version__}" in out
    assert max(map(len, out.splitlines())) <= 100


def test_neither_host_nor_user_nor_path_is_named(difftrace: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "annas-laptop")
    monkeypatch.setattr(platform, "release", lambda: "6.1-annas-laptop")
    monkeypatch.setenv("DIFFTRACE_CACHE_DIR", "/home/anna/cache")
    monkeypatch.setenv("PYTORCH_SECRET_TOKEN", "abc/def")
    monkeypatch.setenv("MY_PASSWORD", "abcdef")
    _, out, _ = difftrace("info", "--json")
    assert document(out)["environment_variables"]["DIFFTRACE_CACHE_DIR"] == "set"
    assert "anna" not in out
    assert "abc" not in out
    assert f"{Path.home()}/" not in out
    assert f"/{getpass.getuser()}/" not in out
    assert sys.prefix not in out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), None),
        (
            OSError("libcudart.so.12: cannot open\n\x1b[31m"),
            {"error": "OSError: libcudart.so.12: cannot open\\n\\x1b[31m"},
        ),
        (ModuleNotFoundError("No module named 'sympy'", name="sympy"), {"error": "No module named 'sympy'"}),
    ],
)
def test_a_torch_that_is_missing_or_broken_is_told(
    difftrace: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, told: dict[str, str] | None
) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "difftrace.determinism.torch_build":
                raise error

    monkeypatch.delitem(sys.modules, "difftrace.determinism.torch_build", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    status, out, _ = difftrace("info", "--json")
    assert status == 0
    assert document(out)["torch"] == told


def test_no_device_is_started(difftrace: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def started(*arguments: object) -> None:
        raise AssertionError("a device was asked for")

    for name in ("is_available", "device_count", "init", "_lazy_init", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, started)
    assert "error" not in document(difftrace("info", "--json")[1])["torch"]
    assert importlib.import_module("difftrace.determinism.torch_build").torch is torch
