"""Job summaries and annotations: within the limits of GitHub, and no text of a test or model becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from difftrace.core.checked import Checked, FirstDivergence, ReportedOutcome
from difftrace.core.report import Report, RunSettings, SeenTest, Selection
from difftrace.reports.github import annotation_lines
from difftrace.reports.job_summary import LIMIT
from difftrace.reports.markdown import report_markdown
from difftrace.reports.markdown_text import code, fenced
from difftrace.reports.workflow_commands import escaped_data, escaped_property

HOSTILE = "a|b`</code><script>*x*_y_[z](http://e)\x1b[31m\u202e@me"


def check(test: str = "test_a", status: Any = "diverged", text: str | None = "difftrace: it differs") -> Checked:
    return Checked(
        nodeid=f"t.py::{test}", module="t.py", id=test, name=None, file="t.py", line=3, run=0, status=status,
        divergence_class="NEAR_TIE" if status == "diverged" else None, reason=None, judgement=None, cannot_tell=(),
        outcome=ReportedOutcome("TEXT", 2, 2, None),
        first_divergence=FirstDivergence("decision", 0, 3, 17, 5, 6, None, None, 3, 3), measured=(), budget=None,
        suspects=(), policy="exact", strategy="rerun", environment=None, seconds=0.0, baseline=None, target=None,
        received=None, text=text,
    )  # fmt: skip


def report(*checks: Checked, because: tuple[str, ...] = ()) -> Report:
    settings = RunSettings("verify", None, "exact", (), (), "rerun", None, None)
    tests = tuple(SeenTest(one.nodeid, one.module, one.id, "failed") for one in checks)
    return Report(because, None, None, (settings,), Selection((".",), (), ()), (), tests, checks)


def test_a_summary_counts_tabulates_and_folds_the_canvas() -> None:
    text = report_markdown(report(check(), check("test_b", "verified", None)), advice="difftrace accept FOLDER")
    assert text.startswith(
        "## DiffTrace: 1 of 2 checks failed\n\n1 diverged, 1 verified<br>\nby class: 1 NEAR&#95;TIE\n"
    )
    assert "| NEAR&#95;TIE | step 3, position 17; 2 final tokens differ |" in text
    assert "unpack it to FOLDER and, in a checkout:\n\n```text\ndifftrace accept FOLDER\n```" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert "test&#95;b" not in text


def test_a_summary_tells_class_and_place_of_a_check_that_is_not_reproducible() -> None:
    text = report_markdown(
        report(
            replace(check("test_a", "not reproducible", None), divergence_class="RUN_TO_RUN"),
            check("test_b", "error", None),
        )
    )
    assert "| not reproducible&#44; RUN&#95;TO&#95;RUN | step 3, position 17; 2 final tokens differ |" in text
    assert "| error | step 3" in text


def test_a_summary_of_good_checks_is_a_line() -> None:
    text = report_markdown(report(check("test_b", "verified", None)), advice="difftrace accept FOLDER")
    assert text == "## DiffTrace: 1 check, none failed\n\n1 verified\n"


def recorded(test: str, status: str, **details: Any) -> Checked:
    return replace(check(test, status, None), target=f"__difftrace__/t/{test}.json", **details)


def test_a_summary_of_a_recording_tells_each_written_baseline_and_what_changed_in_it() -> None:
    nothing: Any = {"divergence_class": None, "outcome": None, "first_divergence": None}
    text = report_markdown(
        report(
            recorded("test_new", "new", **nothing),
            recorded("test_same", "unchanged"),
            recorded("test_env", "changed", **nothing | {"reason": "They | agree."}),
            recorded("test_run", "changed", divergence_class="INPUT"),
            recorded("test_sum", "changed", divergence_class="NUMERIC", first_divergence=None, reason="It is off."),
        )
    )
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split(" | ") for line in table[2:]] == [
        ["| changed", code("t.py::test_env"), code("__difftrace__/t/test_env.json"), "–", "They &#124; agree&#46; |"],
        [
            "| changed", code("t.py::test_run"), code("__difftrace__/t/test_run.json"), "INPUT",
            "step 3, position 17; 2 final tokens differ |",
        ],
        ["| changed", code("t.py::test_sum"), code("__difftrace__/t/test_sum.json"), "NUMERIC", "It is off&#46; |"],
        ["| new", code("t.py::test_new"), code("__difftrace__/t/test_new.json"), "–", "– |"],
    ]  # fmt: skip


def test_the_table_of_written_baselines_is_bounded_and_says_where_it_is_cut() -> None:
    many = report(*(recorded(f"test_{index}", "new") for index in range(600)))
    assert "| and 400 more | | | | |\n" in report_markdown(many)
    assert report_markdown(many).count("\n| new |") == 200
    for limit in (0, 10, 199, 300, 2000):
        text = report_markdown(many, limit)
        assert len(text.encode()) <= limit
        assert not text or text.endswith(
            "\nThe table of the baselines written is cut short here; the report file has them all.\n"
        )
    both = report(*many.checks, *(check(f"test_bad_{index}") for index in range(600)))
    for limit in (0, 199, 200, 201, 2000, 100_000):
        assert len(report_markdown(both, limit).encode()) <= limit


def test_an_incomplete_run_says_so() -> None:
    text = report_markdown(report(check(), because=("a worker process crashed",)))
    assert "**The run is incomplete:** <code>a worker process crashed</code>" in text


def test_a_summary_never_exceeds_its_limit_and_says_what_is_left_out() -> None:
    checks = [check(f"test_{index}", text="difftrace: é\n" * 200) for index in range(600)]
    text = report_markdown(report(*checks))
    assert len(text.encode()) <= LIMIT
    shown = text.count("<details>")
    assert 0 < shown < 600
    assert f"{600 - shown} more failed checks are left out here" in text
    for limit in (0, 10, 199, 300, 2000):
        assert len(report_markdown(report(*checks), limit).encode()) <= limit


@pytest.mark.parametrize("limit", [-10, 0, 40, 64, 80, 199])
def test_where_there_is_no_room_a_summary_is_its_note_as_a_whole_or_nothing(limit: int) -> None:
    note = "\n3 more failed checks are left out here; the report file has them.\n"
    text = report_markdown(report(*(check(f"test_{index}") for index in range(3))), limit)
    assert text == (note if limit >= len(note) else "")


def test_no_text_becomes_markup() -> None:
    shown = code(HOSTILE)
    inner = shown.removeprefix("<code>").removesuffix("</code>")
    assert not re.search(r"[|`<>*_\[\]()@~]", inner.replace("&#", ""))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    text = report_markdown(
        report(replace(check(), nodeid=f"t.py::{HOSTILE}", text=f"x\n```\n</details>{HOSTILE}\n````"))
    )
    assert "<script>" not in text.partition("`````text")[0]
    assert fenced("a\n````\nb") == "`````text\na\n````\nb\n`````"


@pytest.mark.parametrize(
    ("text", "data", "value"),
    [("50% a\r\nb: c, d", "50%25 a%0D%0Ab: c, d", "50%25 a%0D%0Ab%3A c%2C d"), ("%0A", "%250A", "%250A")],
)
def test_commands_are_escaped(text: str, data: str, value: str) -> None:
    assert (escaped_data(text), escaped_property(text)) == (data, value)


def test_annotations_are_at_the_check_and_one_line_each() -> None:
    [line] = annotation_lines([check(), check("test_b", "verified", None)], lambda file: f"sub,dir/{file}")
    assert line == (
        "::error file=sub%2Cdir/t.py,line=3,title=DiffTrace%3A NEAR_TIE::t.py::test_a%0Adifftrace: it differs"
    )


def annotated(text: str) -> list[str]:
    [line] = annotation_lines([check(text=text)], str)
    return line.partition("::t.py::test_a")[2].split("%0A")[1:]


def test_an_annotation_is_cut_between_sections_so_that_golden_and_observed_stay_together() -> None:
    start = ["difftrace: it differs", *["  where"] * 4, "", *["reason"] * 8, "", "0 of 16 steps agreed before it"]
    start += ["  golden    commits token 5", "  observed  commits token 6"]
    rest = ["The rest is in the job's summary, or else in its log."]
    canvas = ["", "the canvas before step 0:", "position  0", "canvas    1", "golden    2"]
    assert annotated("\n".join(start)) == start
    assert annotated("\n".join(start + canvas)) == [*start, "", *rest]
    assert annotated("\n".join(["difftrace: it differs", *start[4:], *canvas])) == [
        "difftrace: it differs",
        *start[4:],
        "",
        *rest,
    ]
    assert annotated("\n".join(["one section"] * 60)) == [*["one section"] * 18, "", *rest]


def test_at_most_eight_annotations_and_one_that_counts_the_others_leave_one_of_ten_to_the_action() -> None:
    lines = annotation_lines([check(f"test_{index}") for index in range(12)], str)
    assert len(lines) == 9
    assert lines[-1] == "::error title=DiffTrace::4 more checks failed"
    assert len(annotation_lines([check(f"test_{index}") for index in range(8)], str)) == 8
    assert annotation_lines([check(f"test_{index}") for index in range(9)], str)[-1].endswith("1 more check failed")
