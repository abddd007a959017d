"""The reference pages are what the code says, and every one is reached from the navigation."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.fixture
def generate(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "docs"))
    before = set(sys.modules)
    yield importlib.import_module("generate")
    for name in {name for name in sys.modules if name.split(".")[0] in ("generate", "reference_pages")} - before:
        del sys.modules[name]


def test_the_reference_is_what_the_code_says(generate):
    assert generate.stale() == [], "run `python docs/generate.py`"


def test_a_page_that_was_changed_by_hand_is_found(generate, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(generate, "PAGES", {"reference/errors.md": generate.PAGES["reference/errors.md"]})
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "reference/errors.md is not what the code says" in capsys.readouterr().out
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_every_reference_page_is_made_and_listed(generate, checkout):
    listed = (checkout / "mkdocs.yml").read_text(encoding="utf-8")
    there = {path.relative_to(checkout / "docs").as_posix() for path in (checkout / "docs/reference").glob("*.md")}
    assert there == set(generate.PAGES)
    assert all(page in listed for page in there)
