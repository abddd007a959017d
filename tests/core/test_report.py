"""The report file: what is written can be read, and what contradicts itself cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.checked import STATUSES
from difftrace.core.classes import CLASSES
from difftrace.core.errors import FormatError, NewerFormatError
from difftrace.core.report import (
    TEST_OUTCOMES,
    BaselineFile,
    Checked,
    FirstDivergence,
    ReceivedFile,
    Report,
    ReportedMeasure,
    ReportedOutcome,
    ReportedSuspect,
    RunSettings,
    SeenTest,
    Selection,
    dump,
    load,
    parse,
    save,
)
from difftrace.core.schemas import schema_text

DIGEST = "sha256:" + "0" * 64
CHECK = Checked(
    nodeid="tests/test_sum.py::test_sum",
    module="tests/test_sum.py",
    id="test_sum",
    name=None,
    file="tests/test_sum.py",
    line=7,
    run=0,
    status="diverged",
    divergence_class="NEAR_TIE",
    reason="close",
    judgement="not within the policy",
    cannot_tell=("nothing",),
    outcome=ReportedOutcome("TEXT", 2, 3, False),
    first_divergence=FirstDivergence("decision", 0, 3, 17, 5, 6, " a", None, 3, 3),
    measured=(ReportedMeasure("logits", 0.1, 0.14, 4, 2),),
    budget="default for bfloat16",
    suspects=(ReportedSuspect("environment.torch", "2.6.0", None),),
    policy="exact",
    strategy="rerun",
    environment=0,
    seconds=0.001,
    baseline=BaselineFile("tests/__difftrace__/test_sum/test_sum.json", True, DIGEST, DIGEST),
    target="tests/__difftrace__/test_sum/test_sum.json",
    received=ReceivedFile("received/tests/test_sum.py/test_sum.json", DIGEST, DIGEST),
    text="difftrace: it differs\n  at tests/test_sum.py:7",
)
REPORT = Report(
    incomplete_because=(),
    rootdir="..",
    results=".",
    runs=(RunSettings("verify", None, "exact", ("DRIFT",), (), "rerun", None, None),),
    selection=Selection(("tests",), (), ()),
    environments=({"torch": "2.6.0", "devices": [1, 2], "canary": None},),
    tests=(SeenTest("tests/test_sum.py::test_sum", "tests/test_sum.py", "test_sum", "failed"),),
    checks=(CHECK,),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    save(path, REPORT)
    assert load(path) == REPORT
    assert path.read_bytes() == dump(load(path))


def test_counts_and_completeness_follow_from_the_entries() -> None:
    document = json.loads(dump(REPORT))
    assert document["counts"] == {"checks": 1, "status": {"diverged": 1}, "class": {"NEAR_TIE": 1}}
    assert document["complete"]
    assert document["selection"]["complete"]
    left_out = replace(REPORT, tests=(*REPORT.tests, SeenTest("t.py::a", "t.py", "a", "deselected")))
    assert left_out.partial_because == ("1 test deselected",)
    assert not left_out.full
    stopped = replace(REPORT, incomplete_because=("interrupted",))
    assert not json.loads(dump(stopped))["complete"]


def test_schema_and_code_name_the_same_things() -> None:
    defs = json.loads(schema_text("report"))["$defs"]
    assert defs["status"]["enum"] == list(STATUSES)
    assert defs["class"]["enum"] == list(CLASSES)
    assert defs["test"]["properties"]["outcome"]["enum"] == list(TEST_OUTCOMES)


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = document
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("format", "difftrace-baseline"), r"\$\.format: is not \"difftrace-report\""),
        (_set("version", "7.0"), r"written by a newer pytest-difftrace"),
        (_set("more", 1), r"\$: "),
        (_set("checks.0.status", "fine"), r"\$\.checks\[0\]\.status"),
        (_set("checks.0.line", 0), r"\$\.checks\[0\]\.line"),
        (_set("checks.0.run", 1), r"\$\.checks\[0\]\.run: is 1, but there are 1"),
        (_set("checks.0.environment", 1), r"\$\.checks\[0\]\.environment: is 1"),
        (_set("checks.0.received.sha256", "abc"), r"\$\.checks\[0\]\.received"),
        (_set("counts.checks", 2), r"\$\.counts: does not follow from the rest"),
        (_set("complete", False), r"\$\.complete: does not follow"),
        (_set("selection.complete", False), r"\$\.selection: does not follow"),
        (_set("checks.0.text", "\ud800"), r"\$\.checks\[0\]\.text: holds half a surrogate pair"),
    ],
)
def test_what_contradicts_itself_is_refused_by_field(change: Callable[[dict[str, Any]], None], told: str) -> None:
    document = json.loads(dump(REPORT))
    change(document)
    with pytest.raises(FormatError, match=rf"^name: .*{told}"):
        parse(json.dumps(document).encode(), "name")


def test_the_same_check_twice_is_refused() -> None:
    with pytest.raises(FormatError, match=r"\$\.checks\[1\]: tests/test_sum.py::test_sum is there twice"):
        dump(replace(REPORT, checks=(CHECK, CHECK)))


def test_a_newer_report_is_told_apart_from_a_broken_one() -> None:
    data = dump(REPORT).replace(b'"version": "0.1"', b'"version": "0.2"')
    with pytest.raises(NewerFormatError):
        parse(data, "name")
