"""What an exit status of pytest and its report come to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from difftrace.core.checked import Checked, FirstDivergence, ReportedOutcome, Status
from difftrace.core.report import Report, RunSettings, SeenTest, Selection
from pytest_difftrace.github.outcome import exit_status, first_divergence, judge

FIRST = FirstDivergence("decision", 0, 3, 17, 4, 5, "a\nb", "\u202e", 3, 3)


def check(test: str, status: Status) -> Checked:
    diverged = status == "diverged"
    return Checked(
        nodeid=f"test_x.py::{test}",
        module="test_x.py",
        id=test,
        name=None,
        file="test_x.py",
        line=3,
        run=0,
        status=status,
        divergence_class="NUMERIC" if diverged else None,
        reason=None,
        judgement=None,
        cannot_tell=(),
        outcome=ReportedOutcome("same tokens", 0, 2, True) if diverged else None,
        first_divergence=FIRST if diverged else None,
        measured=(),
        budget=None,
        suspects=(),
        policy="exact",
        strategy="rerun",
        environment=0,
        seconds=0.1,
        baseline=None,
        target=None,
        received=None,
        text=None,
    )


def report(*statuses: Status, incomplete: tuple[str, ...] = (), **others: str) -> Report:
    """Return a report with a check for each status; `others` are tests without checks and their outcomes."""
    checks = tuple(check(f"test_{index}", status) for index, status in enumerate(statuses))
    passed = ("verified", "allowed", "unchanged", "new", "changed", "skipped")
    tests = [SeenTest(one.nodeid, one.module, one.id, "passed" if one.status in passed else "failed") for one in checks]
    tests += [SeenTest(f"test_x.py::{name}", "test_x.py", name, outcome) for name, outcome in others.items()]
    return Report(
        incomplete,
        ".",
        ".",
        (RunSettings("verify", None, "exact", (), (), "rerun", None, None),),
        Selection((".",), (), ()),
        ({"platform_key": "rocm-gfx942"},),
        tuple(tests),
        checks,
    )


@pytest.mark.parametrize(
    ("status", "seen", "result"),
    [
        (0, report("verified", "allowed"), "pass"),
        (0, report("new", "changed", "unchanged"), "pass"),
        (1, report("verified", "diverged"), "diverged"),
        (1, report("not reproducible"), "diverged"),
        (1, report("diverged", "without baseline"), "diverged"),
        (1, report("verified", "without baseline"), "no-baseline"),
        (1, report("diverged", "unreadable"), "error"),
        (1, report("diverged", test_other="failed"), "error"),
        (1, report("verified"), "error"),
        (0, report(), "error"),
        (0, None, "error"),
        (2, report("verified"), "error"),
        (1, report("diverged", incomplete=("a worker process crashed",)), "error"),
        (1, report("diverged", incomplete=("1 test did not run to the end (stopping after 1 failures)",)), "diverged"),
        (1, report("unreadable", incomplete=("2 tests did not run to the end (stopping after 1 failures)",)), "error"),
        (1, report("diverged", incomplete=("2 tests did not run to the end",)), "error"),
        (5, None, "error"),
        (-9, report("verified"), "error"),
    ],
)
def test_the_result_is_the_worst_that_happened(status, seen, result):
    found = judge(status, seen)
    assert found.result == result
    assert (found.problem is None) == (result != "error")


def test_tests_that_failed_before_their_checks_are_named():
    found = judge(1, None, ["test_x::test_b", "test_x::test_a"])
    assert found.problem is not None
    assert "2 tests, such as test_x::test_a, failed before one" in found.problem
    assert "inputs paths" not in found.problem


def test_checks_are_counted_and_the_first_divergence_is_one_line_of_json():
    found = judge(1, report("verified", "diverged", "allowed", "diverged"))
    assert (found.passed, found.diverged, found.platform_key) == (2, 2, "rocm-gfx942")
    told = first_divergence(found.first)
    assert told.isascii()
    assert "\n" not in told
    document = json.loads(told)
    assert (document["nodeid"], document["class"], document["line"]) == ("test_x.py::test_1", "NUMERIC", 3)
    assert document["divergence"]["golden_piece"] == "a\nb"
    assert (document["divergence"]["step"], document["outcome"]["kind"]) == (3, "same tokens")
    assert first_divergence(None) == ""


def test_only_divergences_can_be_let_pass():
    strict = {one: exit_status(one, fail_on_divergence=True) for one in ("pass", "diverged", "no-baseline", "error")}
    assert strict == {"pass": 0, "diverged": 1, "no-baseline": 1, "error": 2}
    assert exit_status("diverged", fail_on_divergence=False) == 0
    assert exit_status("no-baseline", fail_on_divergence=False) == 1
    assert exit_status("error", fail_on_divergence=False) == 2


def test_a_test_that_fails_beside_its_check_is_no_error_of_its_own():
    seen = report("diverged")
    assert judge(1, replace(seen, tests=seen.tests[:1])).result == "diverged"
