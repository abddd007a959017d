"""The results folder: received runs and the last report, never outside it, and what is said at the end."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree
from pathlib import Path

import pytest

from difftrace.core.baseline import load
from difftrace.core.report import load as load_report

CHECKED = "def test_a(difftrace): difftrace.check(traj({}))\n"


@pytest.fixture
def diverging(suite, run_pytest, pytester):
    """A recorded suite whose one test does not decide any more as it did, and no results folder."""
    suite(CHECKED.format(3))
    run_pytest("--difftrace-record")
    shutil.rmtree(pytester.path / ".difftrace")
    return suite(CHECKED.format(4))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_failed_check_leaves_its_run_as_a_baseline_and_a_report(diverging, run_pytest, pytester):
    run_pytest()
    results = pytester.path / ".difftrace"
    assert files(results) == [".gitignore", "received/test_x.py/test_a.json", "report.json"]
    assert (results / ".gitignore").read_text().splitlines()[-1] == "*"
    [check] = load_report(results / "report.json").checks
    received = load(results / "received/test_x.py/test_a.json")
    assert received.sequences[0].trajectory.tokens.tolist() == [4]
    assert received.test is not None
    assert received.test.id == "test_a"
    assert check.received is not None
    assert check.received.digest == received.digest


def test_nothing_is_written_where_nothing_failed_and_nobody_asked(suite, run_pytest, pytester):
    suite(CHECKED.format(3) + "def test_b(): assert False\n")
    run_pytest("--difftrace-record")
    results = pytester.path / ".difftrace"
    assert files(results) == [".gitignore", "report.json"]
    for path in (results / ".gitignore", results / "report.json"):
        path.unlink()
    results.rmdir()
    run_pytest("-W", "ignore")
    assert not results.exists()
    suite("def test_b(): pass\n")
    run_pytest("--difftrace-verify")
    assert not results.exists()


def test_the_next_run_forgets_received_runs_of_the_last(diverging, suite, run_pytest, pytester):
    run_pytest()
    suite(CHECKED.format(3))
    run_pytest("--difftrace-verify")
    assert files(pytester.path / ".difftrace") == [".gitignore", "report.json"]


def test_the_folder_can_be_chosen(diverging, run_pytest, pytester):
    run_pytest("--difftrace-results", "elsewhere/there")
    assert files(pytester.path / "elsewhere" / "there")[-1] == "report.json"
    run_pytest("-o", "difftrace_results=mine")
    assert files(pytester.path / "mine")[-1] == "report.json"
    assert not (pytester.path / ".difftrace").exists()


def test_an_ini_file_cannot_put_it_outside_the_root_folder(diverging, run_pytest, pytester):
    outside = pytester.path.parent / f"{pytester.path.name}-outside"
    result = run_pytest("-o", f"difftrace_results=../{outside.name}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: received run of test_x.py::test_a not written: *outside the root folder*"])
    assert not outside.exists()


@pytest.mark.parametrize("link", [".difftrace", ".difftrace/received", ".difftrace/received/test_x.py"])
def test_no_link_leads_out_of_it(diverging, run_pytest, pytester, link):
    outside = pytester.path.parent / f"{pytester.path.name}-outside"
    outside.mkdir()
    path = pytester.path / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside, target_is_directory=True)
    result = run_pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["difftrace: run differs from its baseline*", "difftrace: received run of*not written*"]
    )
    assert not list(outside.iterdir())


def test_hostile_ids_and_folders_stay_inside(pytester, suite, run_pytest):
    suite(
        "@pytest.mark.parametrize('p', ['../../x', '/etc/x', 'x' * 300, 'a\\x00b'])\n"
        "def test_a(p, difftrace): difftrace.check(traj(3))\n"
    )
    folder = pytester.path / "a b" / "c:d"
    folder.mkdir(parents=True)
    (pytester.path / "test_x.py").rename(folder / "test_x.py")
    run_pytest()
    results = pytester.path / ".difftrace"
    received = [check.received for check in load_report(results / "report.json").checks]
    paths = [one.path for one in received if one is not None]
    assert len(set(paths)) == 4
    for path in paths:
        assert (results / path).resolve().is_relative_to(results)
        assert not set(path) & set(" :\\\x00")


def test_a_scored_run_without_baseline_is_denoised_to_be_received(suite, run_pytest, pytester):
    suite(
        """
from difftrace.core.deferred import DeferredRun
def test_a(difftrace):
    declared = Run((Trajectory(prompt=[], initial=[9], steps=[], positions=[], tokens=[], num_steps=0),))
    difftrace.check(DeferredRun(declared, lambda: Run((traj(3, 4),)), None, None))
"""
    )
    run_pytest("--difftrace-verify")
    received = load(pytester.path / ".difftrace/received/test_x.py/test_a.json")
    assert received.sequences[0].trajectory.num_events == 2


def test_the_end_names_classes_and_the_next_commands_once(diverging, run_pytest):
    lines = run_pytest().outlines
    told = [line for line in lines if line.startswith("difftrace: to ") or "by class" in line]
    files = "__difftrace__/test_x/test_a.json .difftrace/received/test_x.py/test_a.json"
    assert told == [
        "difftrace: diverged by class: 1 CANNOT TELL",
        f"difftrace: to see:    difftrace diff {files}",
        "difftrace: to accept: difftrace accept .difftrace",
        "difftrace: to record: pytest --difftrace-record test_x.py::test_a",
    ]
    assert not any(line.startswith("difftrace: to ") for line in run_pytest("-q").outlines)
    assert not any(line.startswith("difftrace: ") and "by class" in line for line in run_pytest("-qq").outlines)
    lines = run_pytest("--no-header", "--difftrace-verify").outlines
    assert not any("mode verify" in line for line in lines)


def test_verbose_names_a_command_for_each_failed_check(suite, run_pytest):
    suite("@pytest.mark.parametrize('i', range(5))\ndef test_a(i, difftrace): difftrace.check(traj(i))\n")
    lines = run_pytest("-v").outlines
    assert sum(line.startswith("difftrace: to see:") for line in lines) == 5
    assert lines.count("difftrace: to record: pytest --difftrace-record test_x.py") == 1
    [see] = [line for line in run_pytest().outlines if line.startswith("difftrace: to see:")]
    assert see.endswith("(and 4 more)")


def test_runs_without_baseline_are_offered_by_the_option_that_names_them(suite, run_pytest, pytester):
    suite(CHECKED.format(3))
    assert "difftrace: to accept: difftrace accept .difftrace --new" in run_pytest().outlines
    run_pytest("--difftrace-record")
    suite(CHECKED.format(4) + "\ndef test_new(difftrace): difftrace.check(traj(1))\n")
    assert "difftrace: to accept: difftrace accept .difftrace" in run_pytest().outlines


def test_a_run_that_does_not_repeat_itself_is_not_offered_for_recording(evident, run_pytest):
    evident("run(3, 4)")
    run_pytest("--difftrace-record")
    evident("run(3, 5, repeat=lambda: run(3, 6))")
    lines = run_pytest().outlines
    assert "difftrace: diverged by class: 1 RUN_TO_RUN" in lines
    assert not any(line.startswith(("difftrace: to accept", "difftrace: to record")) for line in lines)


def test_nothing_is_said_where_nothing_failed(suite, run_pytest):
    suite(CHECKED.format(3))
    run_pytest("--difftrace-record")
    assert not any(line.startswith("difftrace:") for line in run_pytest().outlines)


def test_junit_properties_tell_class_place_and_baseline(evident, run_pytest, pytester):
    evident("run(3, 4)")
    run_pytest("--difftrace-record")
    evident("run(3, 5)")
    run_pytest("--junitxml=out.xml", "-o", "junit_family=xunit1")
    root = xml.etree.ElementTree.parse(pytester.path / "out.xml").getroot()
    properties = {one.get("name"): one.get("value") for one in root.iter("property")}
    assert properties["difftrace.status"] == "diverged"
    assert (properties["difftrace.step"], properties["difftrace.position"]) == ("1", "3")
    assert properties["difftrace.class"] in ("NUMERIC", "LOGIC")
    assert (properties["difftrace.baseline"] or "").startswith("sha256:")


@pytest.fixture
def github(monkeypatch, pytester) -> Path:
    """A job's summary file on a runner whose repository is the folder above the suite."""
    summary = pytester.path.parent / f"{pytester.path.name}-summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_github_gets_an_annotation_at_the_check_and_a_summary(diverging, run_pytest, pytester, github, workers):
    lines = run_pytest(*workers).outlines
    [annotation] = [line for line in lines if line.startswith("::")]
    file = f"{pytester.path.name}/test_x.py"
    start = f"::error file={file},line=11,title=DiffTrace%3A CANNOT TELL::test_x.py::test_a%0Adifftrace: run differs"
    assert annotation.startswith(start)
    text = github.read_text()
    assert text.startswith("## DiffTrace: 1 of 1 check failed")
    assert "<details>" in text
    assert "the canvas before step 0" in text
    assert "download the artifact of the results folder, unpack it to FOLDER" in text
    assert "```text\ndifftrace accept FOLDER\n```" in text
    assert "difftrace: to accept: difftrace accept .difftrace" in lines


def test_github_gets_no_second_annotation_beside_the_plugin_for_that(diverging, run_pytest, pytester, github):
    (pytester.path / "pytest_github_actions_annotate_failures.py").touch()
    pytester.syspathinsert()
    lines = run_pytest("-p", "pytest_github_actions_annotate_failures").outlines
    assert not any(line.startswith("::") for line in lines)
    assert github.exists()


def test_elsewhere_nothing_is_written_for_github(diverging, run_pytest, pytester, github, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert not any(line.startswith("::") for line in run_pytest().outlines)
    assert not github.exists()


def test_the_summary_shares_its_limit_with_what_is_there(diverging, run_pytest, github):
    github.write_text("x" * ((1 << 20) - 600))
    run_pytest()
    assert len(github.read_bytes()) <= 1 << 20
    assert "left out here" in github.read_text()


def test_a_damaged_report_is_told_not_raised(diverging, run_pytest, pytester):
    (pytester.path / ".difftrace" / "report.json").mkdir(parents=True)
    result = run_pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: report not written: *report.json: could not be written*"])
