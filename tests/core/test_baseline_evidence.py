"""What format 0.2 added to a baseline, evidence of its sequences and a budget, and how older files are read."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.baseline import Baseline, Budget, SequenceRecord, TestId, dump, load, parse, save
from difftrace.core.errors import BudgetError, FormatError, TrajectoryError
from difftrace.core.evidence import Evidence
from difftrace.core.schemas import violation
from difftrace.core.trajectory import Trajectory

Simulated = Callable[..., tuple[Trajectory, Evidence]]
Document = dict[str, Any]

OLD = Path(__file__).parent / "fixtures" / "baseline-0.1.json"
PREVIOUS = OLD.with_name("baseline-0.2.json")
LAST_BEFORE = OLD.with_name("baseline-0.3.json")
BUDGET = Budget(0.5, 0.25, 1e-05, {"runs": 3, "device": "cpu", "batch": None, "exact": False})


@pytest.fixture
def recorded(baseline: Baseline, simulated: Simulated) -> Baseline:
    trajectory, evidence = simulated()
    records = (SequenceRecord(trajectory, "42", None, evidence), SequenceRecord(trajectory, None, None))
    return dataclasses.replace(baseline, sequences=records, budget=BUDGET)


def refusal(baseline: Baseline, edit: Callable[[Document], object]) -> str:
    document = json.loads(dump(baseline))
    edit(document)
    with pytest.raises(FormatError) as caught:
        parse(json.dumps(document).encode(), "golden.json")
    return str(caught.value)


def test_evidence_and_budget_round_trip(recorded: Baseline, tmp_path: Path) -> None:
    save(tmp_path / "golden.json", recorded)
    read = load(tmp_path / "golden.json")
    assert read == recorded
    assert read.sequences[0].evidence == recorded.sequences[0].evidence
    assert read.sequences[1].evidence is None
    assert read.budget == BUDGET
    assert dump(read) == dump(recorded)


def test_the_document_keeps_the_schema(recorded: Baseline) -> None:
    document = json.loads(dump(recorded))
    assert violation("baseline", document) is None
    assert document["budget"]["logits"] == 1e-05
    assert set(document["sequences"][0]["evidence"]) == {"digest", "payload"}
    assert "evidence" not in document["sequences"][1]


def test_evidence_is_no_part_of_what_has_to_be_equal(recorded: Baseline) -> None:
    bare = [dataclasses.replace(record, evidence=None) for record in recorded.sequences]
    other = dataclasses.replace(recorded, sequences=tuple(bare), budget=None)
    assert other.digest == recorded.digest
    assert other.same_decisions(recorded)
    assert "budget" not in json.loads(dump(other))


def test_a_baseline_of_format_0_1_is_read_and_written_as_1_0() -> None:
    read = load(OLD)
    assert read.test == TestId("test_sum.py", "TestSum::test_small[3-é]", "second")
    assert read.model is not None
    assert read.model.mask_token_id == 126336
    assert read.environment["flags"] == ["avx2", "fma"]
    first, second = read.sequences
    assert (first.text, first.prompt_text, second.text) == ("42", "12 + 30 =", None)
    mask = 126336
    assert first.trajectory == Trajectory(
        [5, 17, 9],
        [126081, 126081, 5, 17, 9, mask, mask, mask, mask],
        [0, 0, 2, 3],
        [5, 8, 6, 7],
        [11, 126081, 13, 12],
        5,
        2,
        [0, 0, 1, 1, 1, 1, 1, 1, 1],
    )
    assert second.trajectory.final.tolist() == [9, 101, 10, 11]
    assert [record.evidence for record in read.sequences] == [None, None]
    assert read.budget is None

    written, old = json.loads(dump(read)), json.loads(OLD.read_bytes())
    assert written.pop("version") == "1.0"
    assert old.pop("version") == "0.1"
    assert written == old


def test_a_baseline_of_format_0_2_is_read_and_written_as_1_0(simulated: Simulated) -> None:
    read = load(PREVIOUS)
    trajectory, evidence = simulated()
    assert read.sequences == (SequenceRecord(trajectory, "42", None, evidence), SequenceRecord(trajectory, None, None))
    assert read.budget == Budget(0.5, 0.25, 1e-05, {"runs": 3})
    assert read.probes == ()
    assert dump(read) == PREVIOUS.read_bytes().replace(b'"version": "0.2"', b'"version": "1.0"')


def test_a_baseline_of_format_0_3_is_read_and_written_as_1_0() -> None:
    read = load(LAST_BEFORE)
    assert [(probe.step, probe.sequence) for probe in read.probes] == [(0, None)]
    assert read.sequences[0].evidence is not None
    assert dump(read) == LAST_BEFORE.read_bytes().replace(b'"version": "0.3"', b'"version": "1.0"')


@pytest.mark.parametrize("field", ["evidence", "budget"])
def test_format_0_1_has_neither_evidence_nor_budget(recorded: Baseline, field: str) -> None:
    def edit(document: Document) -> None:
        document["version"] = "0.1"
        if field == "evidence":
            del document["budget"]
        else:
            del document["sequences"][0]["evidence"]

    where = "$" if field == "budget" else "$.sequences[0]"
    assert f"golden.json: {where}: '{field}' should not be valid" in refusal(recorded, edit)


def inside(field: str, value: object) -> Callable[[Document], None]:
    return lambda document: document["sequences"][0]["evidence"].update({field: value})


def other_payload(simulated: Simulated, **shape: int) -> dict[str, str]:
    evidence = simulated(**shape)[1]
    return {"digest": evidence.digest, "payload": base64.b64encode(evidence.to_bytes()).decode()}


def test_a_fault_in_the_evidence_is_named_with_its_field(recorded: Baseline, simulated: Simulated) -> None:
    path = "golden.json: $.sequences[0].evidence"
    assert refusal(recorded, inside("digest", f"sha256:{'0' * 64}")).startswith(
        f"{path}.digest: does not match the pay"
    )
    assert refusal(recorded, inside("payload", "ab!c")) == f"{path}.payload: is not base64"
    assert refusal(recorded, inside("payload", "")).startswith(f"{path}.payload: these bytes are not encoded evidence")
    assert refusal(recorded, inside("extra", 1)).startswith(f"{path}: Additional properties")
    for shape, message in (
        ({"steps": 4}, "the evidence is of 8 steps, but the trajectory has 4"),
        ({"seed": 5}, "step 0 lists a position as rejected that it commits"),
    ):
        payload = other_payload(simulated, **shape)
        found = refusal(recorded, lambda document, payload=payload: document["sequences"][0].update(evidence=payload))
        assert found.startswith(f"{path}: ")
        assert message.split(",")[0].split(" of ")[0] in found


def test_every_flipped_byte_of_the_evidence_is_refused(recorded: Baseline) -> None:
    payload = base64.b64decode(json.loads(dump(recorded))["sequences"][0]["evidence"]["payload"])
    for place in range(0, len(payload), 41):
        changed = bytearray(payload)
        changed[place] ^= 1
        message = refusal(recorded, inside("payload", base64.b64encode(changed).decode()))
        assert message.startswith("golden.json: $.sequences[0].evidence.payload: ")


def test_what_evidence_expands_to_is_bounded_before_any_is(recorded: Baseline) -> None:
    def edit(document: Document) -> None:
        document["sequences"] = [{**document["sequences"][0], "steps": 1 << 17}] * 2

    assert "$.sequences: they announce 13369568 numbers, more than the limit" in refusal(recorded, edit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": -1}, "$.budget.scores: -1 is less than the minimum of 0"),
        ({"logits": "much"}, "$.budget.logits: 'much' is not of type 'number'"),
        ({"logits": True}, "$.budget.logits: True is not of type 'number'"),
        ({"measured": {"runs": []}}, "$.budget.measured.runs: [] is not"),
        ({"extra": 1}, "$.budget: Additional properties"),
    ],
)
def test_a_fault_in_the_budget_is_named_with_its_field(recorded: Baseline, change: Document, message: str) -> None:
    assert message in refusal(recorded, lambda document: document["budget"].update(change))


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None, True])
def test_a_budget_is_a_finite_number_of_at_least_zero(value: Any) -> None:
    with pytest.raises(BudgetError, match="the budget for confidences is"):
        Budget(0.1, value, 0.1, {})


def test_a_record_refuses_evidence_of_another_trajectory(simulated: Simulated) -> None:
    with pytest.raises(TrajectoryError, match="evidence is of 8 steps"):
        SequenceRecord(simulated(steps=4)[0], None, None, simulated()[1])
