"""The results folder stays in the workspace, whatever names it and whatever tests put into it."""

from __future__ import annotations

import pytest

from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.results_folder import links_of, results_folder


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
    for name in ("report.json", "junit.xml", ".gitignore", "recorded/__difftrace__/test_x/test_a.json"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    assert results_folder(tmp_path, "out") == tmp_path / "out"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".gitignore"]


@pytest.mark.parametrize(
    "name", ["~", "~/.ssh", "./~", "#x", "./!x", "*", "a[1]/b", "a?", "a\\b", "a\nb", "x /.", "./ x", "./\tx"]
)
def test_a_name_that_the_upload_would_take_for_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(ActionError, match=r"input results-dir: .* would be a pattern"):
        results_folder(tmp_path, name)


@pytest.mark.parametrize("name", ["out/put put", "a/~b", "a#b!", '"; touch pwned; $(touch pwned)', "ö"])
def test_other_names_are_folders_like_any(tmp_path, name):
    assert results_folder(tmp_path, name) == tmp_path / name


def test_a_report_that_cannot_be_removed_is_told_with_its_name(tmp_path):
    (tmp_path / "out/report.json").mkdir(parents=True)
    with pytest.raises(ActionError, match=r"report\.json of an earlier run in 'out' cannot be removed"):
        results_folder(tmp_path, "out")


@pytest.mark.parametrize("name", ["index.md", "verify.yml", "report.json.bak", ".difftrace-x.tmp"])
def test_a_folder_that_holds_anything_but_results_is_refused_and_left_as_it_is(tmp_path, name):
    (tmp_path / "docs").mkdir()
    for file in ("report.json", name):
        (tmp_path / "docs" / file).touch()
    with pytest.raises(ActionError, match=rf"input results-dir: 'docs' holds '{name}', which is not of a run"):
        results_folder(tmp_path, "docs")
    assert (tmp_path / "docs/report.json").exists()


def test_a_folder_of_an_earlier_run_serves_again(tmp_path):
    (tmp_path / "out/received/test_x.py").mkdir(parents=True)
    for name in (".gitignore", "report.html", ".difftrace-0123456789abcdef.tmp"):
        (tmp_path / "out" / name).touch()
    assert results_folder(tmp_path, "out") == tmp_path / "out"


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 2500 + "b", "out/" + "ö" * 128, "file/out"])
def test_a_name_that_no_folder_can_have_is_refused_in_one_short_message(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ActionError, match="input results-dir: there can be no folder") as caught:
        results_folder(tmp_path, name)
    assert len(str(caught.value)) < 250


def test_links_that_an_upload_would_follow_are_found(tmp_path):
    (tmp_path / "out/a").mkdir(parents=True)
    assert links_of(tmp_path, tmp_path / "out") == []
    (tmp_path / "out/a/passwd").symlink_to("/etc/passwd")
    (tmp_path / "out/etc").symlink_to("/etc")
    assert links_of(tmp_path, tmp_path / "out") == ["out/a/passwd", "out/etc"]
    (tmp_path / "to").symlink_to(tmp_path / "out")
    assert links_of(tmp_path, tmp_path / "to") == ["to"]


def test_a_link_in_place_of_a_folder_above_is_found_too(tmp_path):
    workspace = tmp_path / "workspace"
    folder = results_folder(workspace, "out/res")
    (tmp_path / "elsewhere/res").mkdir(parents=True)
    workspace.mkdir()
    (workspace / "out").symlink_to(tmp_path / "elsewhere")
    assert links_of(workspace, folder) == ["out"]
