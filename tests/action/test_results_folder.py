"""The results folder stays in the workspace, whatever names it and whatever tests put into it."""

from __future__ import annotations

import pytest

from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.results_folder import links_below, results_folder


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/tmp/x", ".git", ".git/hooks", ".GIT/x", "file", "link", "link/x"]
)
def test_a_folder_elsewhere_is_refused(tmp_path, name):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    (workspace / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ActionError, match="input results-dir: "):
        results_folder(workspace, name)


def test_reports_of_an_earlier_run_are_not_taken_for_this_ones(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("report.json", "junit.xml", "mine.txt"):
        (tmp_path / "out" / name).touch()
    assert results_folder(tmp_path, "out") == tmp_path / "out"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_links_that_an_upload_would_follow_are_found(tmp_path):
    (tmp_path / "out/a").mkdir(parents=True)
    assert links_below(tmp_path / "out") == []
    (tmp_path / "out/a/passwd").symlink_to("/etc/passwd")
    (tmp_path / "out/etc").symlink_to("/etc")
    assert links_below(tmp_path / "out") == ["a/passwd", "etc"]
    (tmp_path / "to").symlink_to(tmp_path / "out")
    assert links_below(tmp_path / "to") == ["to"]
