"""docker/Dockerfile.rocm, read: nothing here can build an image."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile.rocm").read_text(encoding="utf-8")


def test_the_image_has_to_be_named():
    assert re.findall(r"^(?:ARG|FROM) .*", DOCKERFILE, re.MULTILINE) == ["ARG IMAGE", "FROM ${IMAGE}"]


def test_a_wheel_can_be_built_from_what_is_copied_and_no_more_is(tmp_path, monkeypatch):
    builder = pytest.importorskip("hatchling.build", reason="hatchling is not installed")
    copied = [words.split() for words in re.findall(r"^COPY (.*)", DOCKERFILE, re.MULTILINE)]
    context = tmp_path / "opt/difftrace-source"
    context.mkdir(parents=True)
    for *sources, target in copied:
        for source in sources:
            assert source in ("pyproject.toml", "README.md", "LICENSE", "src", "pytest_difftrace", "schemas")
            if (ROOT / source).is_dir():
                assert target == f"/opt/difftrace-source/{source}"
                shutil.copytree(ROOT / source, context / source, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                assert target == "/opt/difftrace-source/"
                shutil.copy(ROOT / source, context)
    monkeypatch.chdir(context)
    (tmp_path / "dist").mkdir()
    with zipfile.ZipFile(tmp_path / "dist" / builder.build_wheel(str(tmp_path / "dist"))) as wheel:
        names = set(wheel.namelist())
    assert {"difftrace/__init__.py", "pytest_difftrace/plugin.py", "difftrace/schemas/report.schema.json"} <= names
