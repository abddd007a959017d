"""What may be demanded of a probe, and the document that a report becomes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from difftrace.core.doctor import PROBES, Demand, DoctorReport, ProbeResult, Surroundings
from difftrace.core.schemas import schema_text, violation

EQUAL = ProbeResult("batch", "2 rows instead of 1", "bit-equal", difference=0.0)
DECISIONS = ProbeResult("batch", "4 rows instead of 1", "same decisions", difference=1e-6)
DIFFERS = ProbeResult("batch", "4 rows instead of 1", "differs", step=3, position=14, prompt=2, difference=0.25)
BROKEN = ProbeResult("batch", "4 rows instead of 1", "not run", reason="RuntimeError: out of memory")
ABSENT = ProbeResult("batch", "4 rows instead of 1", "not run", reason="not available here", unavailable=True)
NOT_FINITE = replace(EQUAL, non_finite=1)


@dataclass(frozen=True)
class Switch:
    name: str
    requested: str | int | bool | None
    effective: str | int | bool | None
    in_force: bool | None
    checked: str
    required: bool


@dataclass(frozen=True)
class Status:
    profile: str
    active: bool
    switches: tuple[Switch, ...]


@pytest.fixture
def report() -> DoctorReport:
    settings = {"prompts": 4, "prompt_tokens": 10, "gen_length": 32, "steps": 16, "block_length": 32, "seed": 0}
    status = Status("cpu", True, (Switch("threads", 1, 1, True, "torch.get_num_threads()", True),))
    around = Surroundings(
        "some",
        None,
        "float32",
        "cpu",
        {**settings, "threads": 1, "attention": "math"},
        status,
        {"torch": "2.6", "x": [1]},
    )
    return DoctorReport(around, (EQUAL, DIFFERS, BROKEN, ABSENT, NOT_FINITE))


@pytest.mark.parametrize(
    ("results", "bits", "decisions"),
    [
        ([EQUAL], True, True),
        ([EQUAL, DECISIONS], False, True),
        ([EQUAL, DIFFERS], False, False),
        # What was not run vouches for nothing.
        ([EQUAL, BROKEN], False, False),
        ([], False, False),
        ([replace(EQUAL, probe="repeat")], False, False),
        # What this machine lacks cannot change a run here, but it is no evidence either.
        ([EQUAL, ABSENT], True, True),
        ([ABSENT], False, False),
        # NaN in both runs says nothing about the decisions.
        ([NOT_FINITE], False, False),
    ],
)
def test_a_demand_is_met_only_by_what_ran_and_was_good_enough(
    results: list[ProbeResult], bits: bool, decisions: bool
) -> None:
    assert Demand("batch").met_by(results) is bits
    assert Demand("batch", "same decisions").met_by(results) is decisions


def test_what_failed_a_demand_is_named() -> None:
    assert Demand("batch").failures([EQUAL, DECISIONS, ABSENT, BROKEN]) == (DECISIONS, BROKEN)


def test_the_document_keeps_its_schema(report: DoctorReport) -> None:
    document = report.to_json([Demand("batch"), Demand("repeat", "same decisions")])
    assert violation("doctor", json.loads(json.dumps(document, allow_nan=False))) is None
    assert [demand["met"] for demand in document["demands"]] == [False, False]
    assert document["status"]["switches"][0]["in_force"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "ok"},
        {"verdict": "differs"},
        {"verdict": "not run"},
        {"verdict": "bit-equal", "difference": 0.5},
        {"step": 3},
        {"unavailable": True},
        {"reason": "why"},
        {"probe": "vibes"},
        {"difference": -1.0},
    ],
)
def test_the_schema_refuses_a_result_that_contradicts_itself(report: DoctorReport, change: dict[str, Any]) -> None:
    document = report.to_json()
    document["probes"][0].update(change)
    assert violation("doctor", document) is not None


@pytest.mark.parametrize("change", [{"verdict": "differs"}, {"verdict": "not run"}, {"step": 1}, {"unavailable": True}])
def test_a_result_cannot_contradict_itself(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        replace(EQUAL, **change)


def test_schema_and_code_know_the_same_probes() -> None:
    assert tuple(json.loads(schema_text("doctor"))["$defs"]["probe"]["enum"]) == PROBES
