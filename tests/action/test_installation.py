"""Installing beside a torch that must stay as it is; pip installs small projects of these tests, without an index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.installation import changed, constraint, installed
from pytest_difftrace.github.torch_build import TorchBuild, examine

ROCM = TorchBuild("/opt/venv/torch/__init__.py", "2.9.0+rocm7.0", "7.0.51831", None)

# A build backend that packs the folder `files` into a wheel.
BACKEND = """
import pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "pytest_difftrace-0.1.0-py3-none-any.whl"
    info = "pytest_difftrace-0.1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        for file in pathlib.Path("files").rglob("*.py"):
            wheel.write(file, file.relative_to("files").as_posix())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: pytest-difftrace\\nVersion: 0.1.0\\n"
                       "Provides-Extra: torch\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "files").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n', encoding="utf-8"
    )
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    (folder / "files/installed_here.py").write_text("", encoding="utf-8")
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}


def test_the_new_environment_has_the_project_and_a_torch_that_was_replaced_is_an_error(project, environment, tmp_path):
    python = installed(project, tmp_path / "scratch", environment)
    assert examine(python, environment).torch == examine(sys.executable, environment).torch
    subprocess.run([python, "-c", "import installed_here, numpy"], env=environment, check=True)
    assert Path(python).is_relative_to(tmp_path)
    (project / "files/torch").mkdir()
    (project / "files/torch/__init__.py").write_text("", encoding="utf-8")
    (project / "files/torch/version.py").write_text("__version__, hip, cuda = '2.99', None, None\n", encoding="utf-8")
    with pytest.raises(ActionError, match=r"changed torch: torch\.version\.hip was None and is None, .* is 2\.99"):
        installed(project, tmp_path / "scratch", environment)
    with pytest.raises(ActionError, match="pip could not install pytest-difftrace; its messages are above"):
        installed(tmp_path / "absent", tmp_path / "scratch", environment)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is started of venv, which here leaves pip out, and pip, which here does nothing; the first "cut" is too."""
    found: list[str] = []

    def start(command: Sequence[str], *_: object) -> None:
        found.append(command[2])
        if command[2] == "venv":
            subprocess.run([*command, "--without-pip"], check=True)
            if found[0] == "cut":
                found.remove("cut")
                raise KeyboardInterrupt

    monkeypatch.setattr("pytest_difftrace.github.installation._run", start)
    return found


def test_packages_that_an_environment_has_in_editable_mode_are_seen(started, environment, tmp_path, monkeypatch):
    """The interpreter belongs to a virtual environment that has a package by a path file."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "parent"], check=True)
    parent = str(tmp_path / "parent/bin/python")
    [site, *_] = examine(parent, environment).sites
    (tmp_path / "sources/my library").mkdir(parents=True)
    (tmp_path / "sources/my library/mylib.py").touch()
    Path(site, "__editable__.mylib.pth").write_text(f"{tmp_path}/sources/my library\n", encoding="utf-8")
    Path(site, "torch").mkdir()
    Path(site, "torch/__init__.py").touch()
    Path(site, "torch/version.py").write_text("__version__, hip, cuda = '2.9', '7.0', None\n", encoding="utf-8")
    monkeypatch.setattr(sys, "executable", parent)
    python = installed(tmp_path, tmp_path / "scratch", environment)
    subprocess.run([python, "-c", "import mylib"], env=environment, check=True)
    assert started == ["venv", "pip"]


def test_an_environment_whose_making_was_cut_off_is_made_anew(started, environment, tmp_path):
    started.append("cut")
    with pytest.raises(KeyboardInterrupt):
        installed(tmp_path, tmp_path / "scratch", environment)
    [folder] = (tmp_path / "scratch").iterdir()
    (folder / "left over").touch()
    installed(tmp_path, tmp_path / "scratch", environment)
    assert not (folder / "left over").exists()
    installed(tmp_path, tmp_path / "scratch", environment)
    assert started == ["venv", "venv", "pip", "pip"]


def test_a_torch_for_rocm_is_held_by_its_full_version():
    assert constraint(ROCM) == "torch==2.9.0+rocm7.0\n"
    assert constraint(None) == ""


def test_any_change_of_torch_is_told():
    assert changed(ROCM, ROCM) is None
    assert changed(None, ROCM) is None
    replaced = changed(ROCM, TorchBuild("/venv/torch/__init__.py", "2.13.0", None, "13.0"))
    assert replaced is not None
    assert "torch.version.hip was 7.0.51831 and is None" in replaced
    assert changed(ROCM, None) is not None
    assert changed(None, None) is not None
