"""Paths that files name stay in their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from difftrace.core.baseline_names import received_path
from difftrace.core.errors import PathError
from difftrace.core.inside import inside


def test_a_path_below_is_given_back(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.json") == tmp_path / "a" / "b.json"


@pytest.mark.parametrize("path", ["", "/a", "..", "a/../b", "a//b", "./a", "a\\..\\b", "C:/a", "a\0b", "a/"])
def test_a_path_that_may_lead_out_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(PathError, match="is no path below a folder"):
        inside(tmp_path, path)


def test_links_on_the_way_and_at_the_end_are_refused_wherever_they_lead(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for path in ("link", "link/a"):
        with pytest.raises(PathError, match="is a symbolic link"):
            inside(tmp_path, path)
    assert inside(tmp_path / "link", "a") == tmp_path / "link" / "a"


def test_received_runs_have_plain_paths_that_differ() -> None:
    assert received_path("tests/test_a.py", "x.json") == "received/tests/test_a.py/x.json"
    hostile = ["../test_a.py", "../../test_a.py", "a b/test_a.py", "a:b/test_a.py", "con/test_a.py", "a./test_a.py"]
    paths = [received_path(module, "x.json") for module in hostile]
    assert len(set(paths)) == len(paths)
    for path in paths:
        parts = path.split("/")
        assert not any(part in ("..", "con") or part.endswith(".") or set(part) & set(" :\\") for part in parts)
