"""`--difftrace-html`: the page of a run, as `difftrace html` writes it of the run's report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SUITE = """
TOKEN = 3
def test_a(difftrace): difftrace.check(traj(2, TOKEN))
def test_b(difftrace): difftrace.check(traj(4))
"""


@pytest.fixture
def changed(suite, run_pytest) -> None:
    """A recorded suite of which one of two tests does something else now."""
    module: Path = suite(SUITE)
    run_pytest("--difftrace-record").assert_outcomes(passed=2)
    module.write_text(module.read_text().replace("TOKEN = 3", "TOKEN = 5 + 0"))


def checks_of(page: Path) -> list[tuple[str, str]]:
    (text,) = re.findall(r'type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return [(check["test"], check["status"]) for check in json.loads(text)["checks"]]


@pytest.mark.parametrize("mode", [[], ["--difftrace-verify"]])
def test_every_check_is_on_the_page(changed, run_pytest, pytester, mode):
    result = run_pytest(*mode, "--difftrace-html=out/page.html")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["difftrace: the page:  out/page.html"])
    page = pytester.path / "out/page.html"
    assert checks_of(page) == [("test_x.py::test_a", "failed"), ("test_x.py::test_b", "passed")]


def test_the_command_line_writes_the_same_page_of_the_report(changed, run_pytest, pytester, monkeypatch):
    from difftrace.cli import group

    run_pytest("--difftrace-html=page.html")
    group.main(["html", str(pytester.path / ".difftrace"), "-o", "again.html"], standalone_mode=False)
    assert (pytester.path / "page.html").read_bytes() == (pytester.path / "again.html").read_bytes()


def test_the_ini_file_can_ask_for_it_inside_the_root_folder_alone(changed, run_pytest, pytester):
    pytester.makeini("[pytest]\ndifftrace_html = page.html\n")
    run_pytest().assert_outcomes(passed=1, failed=1)
    assert len(checks_of(pytester.path / "page.html")) == 2
    pytester.makeini("[pytest]\ndifftrace_html = ../page.html\n")
    result = run_pytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "leads out of the root folder" in result.stderr.str()


def test_a_run_without_checks_has_a_page_that_says_so(suite, run_pytest, pytester):
    suite("def test_a(): pass\n")
    run_pytest("--difftrace-html=page.html").assert_outcomes(passed=1)
    assert checks_of(pytester.path / "page.html") == []


def test_a_page_that_cannot_be_written_fails_the_run_and_says_why(suite, run_pytest, pytester):
    suite("def test_a(): pass\n")
    (pytester.path / "file").write_text("")
    result = run_pytest("--difftrace-html=file/page.html")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*page not written: *"])
