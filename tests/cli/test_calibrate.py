"""`difftrace calibrate`: a budget measured here goes into the baseline, and nothing else of it changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrace.core.baseline import load, save
from difftrace.core.classification import classify
from difftrace.core.schemas import violation

Command = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart"


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return Path(shutil.copy(FOLDER / "test_sum.json", tmp_path))


def test_the_budget_is_written_and_the_decisions_are_not_touched(difftrace: Command, baseline: Path) -> None:
    before = load(baseline)
    status, out, err = difftrace("calibrate", baseline)
    after = load(baseline)
    assert (status, err) == (0, "")
    assert after.budget is not None
    assert replace(after, budget=None) == before
    assert classify(after, after).tau_source == "calibrated in the baseline"
    assert "attention flash" in out
    assert "before" not in out
    assert "; before: scores" in difftrace("calibrate", baseline)[1]


def test_calibrating_again_writes_the_same_bytes(difftrace: Command, baseline: Path) -> None:
    difftrace("calibrate", baseline)
    first = baseline.read_bytes()
    difftrace("calibrate", baseline)
    assert baseline.read_bytes() == first


def test_a_dry_run_writes_nothing(difftrace: Command, baseline: Path) -> None:
    before = baseline.read_bytes()
    status, out, _ = difftrace("calibrate", baseline, "--dry-run", "--margin", "3")
    assert status == 0
    assert "not written" in out
    assert baseline.read_bytes() == before


def test_what_decides_otherwise_is_refused_and_the_others_are_calibrated(
    difftrace: Command, baseline: Path, tmp_path: Path
) -> None:
    golden, other = load(baseline), tmp_path / "other.json"
    trajectory = golden.sequences[0].trajectory
    changed = replace(trajectory, tokens=[(token + 1) % 100 for token in trajectory.tokens.tolist()])
    save(other, replace(golden, sequences=(replace(golden.sequences[0], trajectory=changed, evidence=None),)))
    before = other.read_bytes()
    status, out, err = difftrace("calibrate", other, baseline, "--json")
    found = json.loads(out)
    assert status == 1
    assert violation("calibration", found) is None
    assert "does not decide as the baseline does: sequence 0 differs at step 0" in err
    assert other.read_bytes() == before
    assert list(found["refused"]) == [str(other)]
    assert found["calibrated"][str(baseline)]["budget"]["measured"]["margin"] == 1.5
    assert load(baseline).budget is not None


def test_a_model_of_other_weights_is_refused(difftrace: Command, baseline: Path, conformance_folder: Path) -> None:
    status, _, err = difftrace("calibrate", baseline, "--model", conformance_folder)
    assert status == 1
    assert "has other weights" in err


def test_what_cannot_be_run_is_in_the_report_beside_what_was_calibrated(
    difftrace: Command, baseline: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.json"
    save(bare, replace(load(baseline), sampler=None))
    status, out, err = difftrace("calibrate", baseline, bare, "--json")
    found = json.loads(out)
    assert status == 2
    assert violation("calibration", found) is None
    assert list(found["calibrated"]) == [str(baseline)]
    assert list(found["refused"]) == [str(bare)]
    assert "does not say which sampler ran" in err


def test_nothing_is_written_unless_all_can_be_read(difftrace: Command, baseline: Path, tmp_path: Path) -> None:
    before, broken = baseline.read_bytes(), tmp_path / "broken.json"
    broken.write_bytes(before[:-20])
    status, out, err = difftrace("calibrate", baseline, broken, "--json")
    assert (status, out) == (2, "")
    assert "broken.json" in err
    assert baseline.read_bytes() == before


@pytest.mark.parametrize("margin", ["nan", "inf"])
def test_a_margin_that_is_no_finite_number_is_a_usage_error(difftrace: Command, baseline: Path, margin: str) -> None:
    status, _, err = difftrace("calibrate", baseline, "--margin", margin)
    assert (status, "is no finite number" in err) == (2, True)


@pytest.mark.parametrize("arguments", [(), ("absent.json",), ("--margin", "0.5")])
def test_what_cannot_run_exits_with_2(difftrace: Command, baseline: Path, arguments: tuple[str, ...]) -> None:
    given = (*arguments, baseline) if "--margin" in arguments else arguments
    assert difftrace("calibrate", *given)[0] == 2
