"""The report of a run: every check once, whatever happens to the run, and honest about what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace.core.checked import ReportedOutcome
from difftrace.core.report import Report, load

FULL = os.environ.get("DIFFTRACE_TEST_FULL") == "1"
FOUR = """
@pytest.mark.parametrize("i", range(4))
def test_a(i, difftrace): difftrace.check(traj(3, TOKEN), "one")
"""

Reported = Callable[..., Report]


@pytest.fixture
def reported(run_pytest, pytester) -> Reported:
    """Run pytest with a report and return what it says."""

    def run(*arguments: str | Path) -> Report:
        run_pytest("--difftrace-report=out/report.json", *arguments)
        return load(pytester.path / "out" / "report.json")

    return run


def statuses(report: Report) -> list[str]:
    return [check.status for check in report.checks]


def test_verified_checks_are_told_with_their_baselines(suite, reported, pytester):
    suite("class TestA:\n  def test_b(self, difftrace): difftrace.check(traj(3))\n")
    assert statuses(reported("--difftrace-record")) == ["new"]
    report = reported("--difftrace-verify")
    [check] = report.checks
    assert (check.nodeid, check.module, check.id) == ("test_x.py::TestA::test_b", "test_x.py", "TestA::test_b")
    assert (check.file, check.line, check.status, check.divergence_class) == ("test_x.py", 12, "verified", "IDENTICAL")
    assert check.baseline is not None
    assert check.baseline.path == check.target == "__difftrace__/test_x/TestA.test_b.json"
    assert check.received is check.text is None
    assert (report.rootdir, report.complete, report.full) == ("..", True, True)
    assert report.selection.covers == (".",)
    assert 0 < check.seconds < 60


def test_a_divergence_is_told_with_its_place_and_the_received_run(evident, reported, pytester):
    evident("run(3, 4)")
    reported("--difftrace-record")
    evident("run(3, 5)")
    report = reported("--difftrace-verify")
    [check] = report.checks
    assert (check.status, check.policy, check.strategy) == ("diverged", "exact", "rerun")
    assert check.first_divergence is not None
    first = check.first_divergence
    assert (first.kind, first.step, first.position, first.golden, first.observed) == ("decision", 1, 3, 4, 5)
    assert check.outcome is not None
    assert check.outcome.tokens == 1
    assert check.budget == "default for float32"
    assert {one.quantity for one in check.measured} >= {"scores", "confidences"}
    assert check.text is not None
    assert check.text.startswith("difftrace: ")
    assert check.environment is not None
    assert report.environments[check.environment]["dtype"] == "float32"
    assert check.received is not None
    assert report.results == "../.difftrace"
    assert (pytester.path / "out" / report.results / check.received.path).is_file()


def test_two_equal_runs_differ_in_their_timings_alone(suite, reported, pytester):
    suite("TOKEN = 4\n" + FOUR)
    reported("--difftrace-record")

    def told() -> str:
        document = json.loads((pytester.path / "out/report.json").read_text())
        for check in document["checks"]:
            del check["seconds"]
        return json.dumps(document)

    reported("--difftrace-verify")
    first = told()
    reported("--difftrace-verify", "-n", "2")
    assert told() == first
    assert str(pytester.path) not in first


def test_recording_tells_each_check_once_although_its_test_runs_twice(suite, reported):
    body = "TOKEN = {}\n" + FOUR + "runs = []\ndef test_b(difftrace):\n  runs.append(1)\n"
    body += "  difftrace.check(traj(len(runs) if {} else 9))\n"
    suite(body.format(4, 0))
    assert statuses(reported("--difftrace-record")) == ["new"] * 5
    assert statuses(reported("--difftrace-record")) == ["unchanged"] * 5
    suite(body.format(5, 1))
    report = reported("--difftrace-record")
    assert statuses(report) == ["changed"] * 4 + ["not reproducible"]
    assert report.runs[0].scope == "changed"
    assert "two runs of this test differ" in (report.checks[-1].text or "")


def test_the_entry_of_a_check_that_is_not_reproducible_tells_how_its_two_runs_differ(suite, reported):
    body = "runs = []\ndef test_a(difftrace):\n  runs.append(1)\n  difftrace.check(traj({}))\n"
    suite(body.format("5, 3"))
    assert statuses(reported("--difftrace-record")) == ["new"]
    for arguments in ((), ("-n", "1")):
        suite(body.format("9, len(runs)"))
        [check] = reported("--difftrace-record", *arguments).checks
        assert (check.status, check.divergence_class, check.judgement) == ("not reproducible", "RUN_TO_RUN", None)
        assert "does not repeat itself" in (check.reason or "")
        assert check.reason in (check.text or "").replace("\n", " ")
        assert check.outcome == ReportedOutcome("TEXT", 1, 1, None)
        first = check.first_divergence
        assert first is not None
        assert (first.step, first.position, first.golden, first.observed) == (1, 3, 1, 2)
        assert check.baseline is not None
        assert check.baseline.digest is not None


def test_a_check_that_diverges_in_a_test_expected_to_fail_is_told_as_diverged(suite, reported):
    body = "{}\ndef test_a(difftrace): difftrace.check(traj({}))\n"
    suite(body.format("", 3))
    reported("--difftrace-record")
    suite(body.format("@pytest.mark.xfail", 4))
    report = reported("--difftrace-verify")
    assert (report.tests[0].outcome, statuses(report)) == ("skipped", ["diverged"])


def test_every_way_a_check_can_end_is_told(suite, reported, baselines, pytester):
    suite(
        """
def test_missing(difftrace): difftrace.check(traj(3))
def test_wrong(difftrace): difftrace.check(7)
def test_twice(difftrace):
    difftrace.check(traj(3), "a")
def test_bad_file(difftrace): difftrace.check(traj(3))
"""
    )
    folder = pytester.path / "__difftrace__" / "test_x"
    folder.mkdir(parents=True)
    (folder / "test_bad_file.json").write_text("{}")
    report = reported("--difftrace-verify")
    assert statuses(report) == ["without baseline", "error", "without baseline", "unreadable"]
    missing, wrong, _, bad = report.checks
    assert missing.baseline is not None
    assert (missing.baseline.sha256, missing.baseline.digest) == (None, None)
    assert missing.received is not None
    assert wrong.text is not None
    assert wrong.text.startswith("TypeError: difftrace.check takes a run")
    assert bad.divergence_class == "INVALID"
    assert bad.baseline is not None
    assert bad.baseline.sha256 is not None
    assert bad.baseline.digest is None


def test_checks_that_are_switched_off_are_told_as_skipped(suite, reported):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    report = reported("-o", "difftrace_mode=off")
    assert statuses(report) == ["skipped"]
    assert report.checks[0].baseline is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-k", "not 2"), "-k"),
        (("-m", "not slow"), "-m"),
        (("test_x.py::test_a",), "single tests named on the command line"),
        (("--deselect", "test_x.py::test_a[0]"), "--deselect"),
        (("--ignore", "elsewhere"), "--ignore"),
        (("--setup-only",), "--setup-only"),
    ],
)
def test_a_partial_selection_says_why(suite, reported, arguments, why):
    suite("TOKEN = 4\n" + FOUR)
    report = reported("--difftrace-verify", "-W", "ignore", *arguments)
    assert why in report.partial_because
    assert not report.full


def test_last_failed_is_a_partial_selection(suite, pytester):
    suite("TOKEN = 4\n" + FOUR)
    pytester.runpytest_inprocess("--lf", "--difftrace-report=report.json")
    assert load(pytester.path / "report.json").partial_because == ("--last-failed",)


def test_tests_left_out_by_a_plugin_are_listed_under_xdist_too(suite, reported, pytester):
    suite("TOKEN = 4\n" + FOUR)
    pytester.makeconftest("def pytest_collection_modifyitems(items): items[:] = items[1:]\n")
    for more in ((), ("-n", "1")):
        report = reported("--difftrace-verify", *more)
        assert report.partial_because == ("1 test deselected",)
        assert [test.outcome for test in report.tests] == ["failed"] * 3 + ["deselected"]


def test_groups_of_xdist_are_no_part_of_node_ids(suite, reported):
    suite(
        "@pytest.mark.xdist_group('g')\n@pytest.mark.parametrize('p', ['a@b'])\n"
        "def test_a(p, difftrace): difftrace.check(traj(3))\n"
    )
    report = reported("--difftrace-verify", "-n", "1", "--dist", "loadgroup")
    assert [test.nodeid for test in report.tests] == ["test_x.py::test_a[a@b]"] == [c.nodeid for c in report.checks]
    assert report.tests[0].outcome == "failed"


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_stopping_at_a_failure_leaves_an_incomplete_report(suite, reported, workers):
    suite("TOKEN = 4\n" + FOUR)
    report = reported("--difftrace-verify", "--maxfail=2", *workers)
    assert len(report.checks) >= 2
    assert not report.complete
    assert "did not run to the end" in report.incomplete_because[-1]
    assert "not run" in {test.outcome for test in report.tests} or workers


def test_modules_that_cannot_be_collected_make_the_report_partial(suite, reported):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    suite("raise ValueError\n", name="test_y")
    report = reported("--difftrace-verify", "--continue-on-collection-errors")
    assert report.partial_because == ("test_y.py could not be collected",)
    assert len(report.checks) == 1


def test_every_check_is_there_once_over_many_workers(suite, reported):
    tests, workers = (200, 8) if FULL else (40, 2)
    suite(f"@pytest.mark.parametrize('i', range({tests}))\ndef test_a(i, difftrace): difftrace.check(traj(i))\n")
    assert len(reported("--difftrace-record", "-n", str(workers)).checks) == tests
    report = reported("--difftrace-verify", "-n", str(workers))
    assert [check.id for check in report.checks] == [f"test_a[{index}]" for index in range(tests)]
    assert report.statuses == {"verified": tests}
    assert report.full


CRASHING = """
def test_a(difftrace): difftrace.check(traj(3))
def test_b(difftrace):
    difftrace.check(traj(3), "before")
    CRASH
def test_c(difftrace): difftrace.check(traj(3))
"""


def outside(
    pytester: pytest.Pytester, *arguments: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--difftrace-report=report.json", *arguments]
    return subprocess.Popen(command, cwd=pytester.path, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)


def test_a_crash_leaves_what_was_known(suite, pytester):
    suite(CRASHING.replace("CRASH", "pass"))
    pytester.runpytest_inprocess("--difftrace-record", "-p", "no:cacheprovider")
    suite(CRASHING.replace("CRASH", "os._exit(7)"))
    assert outside(pytester, "--difftrace-verify").wait() == 7
    report = load(pytester.path / "report.json")
    assert statuses(report) == ["verified"]
    assert report.incomplete_because == ("the run has not ended",)
    assert [test.outcome for test in report.tests] == ["passed", "not run", "not run"]
    assert load(pytester.path / ".difftrace" / "report.json").checks == report.checks


def test_a_killed_run_leaves_what_was_known(suite, pytester):
    suite(CRASHING.replace("CRASH", "pass"))
    pytester.runpytest_inprocess("--difftrace-record", "-p", "no:cacheprovider")
    suite(CRASHING.replace("CRASH", "import sys; print('under way', flush=True); sys.stdin.read()"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with outside(pytester, "--difftrace-verify", "-s", "-W", "ignore", **pipes) as process:
        # It says so, then waits for the end of its input, which does not come; if it ends before, so does its output.
        assert any(line.endswith(b"under way\n") for line in process.stdout)
        process.kill()
    report = load(pytester.path / "report.json")
    assert statuses(report) == ["verified"]
    assert not report.complete


def test_checks_that_passed_just_before_a_long_test_are_written_while_it_runs(suite, pytester):
    checks = "".join(f"def test_{i}(difftrace): difftrace.check(traj(3))\n" for i in range(5))
    suite(f"{checks}def test_long(): pass\n")
    pytester.runpytest_inprocess("--difftrace-record", "-p", "no:cacheprovider")
    suite(
        f"""{checks}
def test_long():
    import time
    end = time.monotonic() + 30
    while time.monotonic() < end and Path("report.json").read_text().count('"verified", ') < 5:
        time.sleep(0.01)
    os._exit(7)
"""
    )
    assert outside(pytester, "--difftrace-verify").wait() == 7
    report = load(pytester.path / "report.json")
    assert statuses(report) == ["verified"] * 5
    assert not report.complete


def test_a_crash_right_after_a_failure_leaves_everything_up_to_it(suite, pytester):
    checks = "".join(f"def test_{i:02}(difftrace): difftrace.check(traj({{}}))\n" for i in range(20))
    suite(checks.format(*[3] * 20) + "def test_crash(): pass\n")
    pytester.runpytest_inprocess("--difftrace-record", "-p", "no:cacheprovider")
    suite(checks.format(*[3] * 19, 4) + "def test_crash(): import os; os._exit(7)\n")
    assert outside(pytester, "--difftrace-verify").wait() == 7
    assert statuses(load(pytester.path / "report.json")) == ["verified"] * 19 + ["diverged"]


def test_a_crashed_worker_is_told_and_the_other_checks_are_there(suite, reported):
    suite(CRASHING.replace("CRASH", "pass"))
    reported("--difftrace-record")
    suite(CRASHING.replace("CRASH", "os._exit(7)"))
    report = reported("--difftrace-verify", "-n", "1")
    assert "a worker process crashed" in report.incomplete_because
    assert [(check.id, check.status) for check in report.checks] == [
        ("test_a", "verified"),
        ("test_c", "verified"),
    ]
    assert {test.id: test.outcome for test in report.tests} == {
        "test_a": "passed",
        "test_b": "error",
        "test_c": "passed",
    }


def test_a_report_that_cannot_be_written_ends_the_run_before_it_starts(suite, run_pytest, pytester):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    (pytester.path / "file").touch()
    result = run_pytest("--difftrace-report=file/report.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--difftrace-report: *file/report.json: could not be written*"])


def test_collecting_alone_writes_no_report(suite, run_pytest, pytester):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    run_pytest("--difftrace-report=report.json", "--collect-only")
    assert not (pytester.path / "report.json").exists()
