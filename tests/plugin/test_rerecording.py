"""Recording over a baseline that is there: what is left alone, what is kept, and what two runs have to share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from difftrace.core.baseline import load, save
from difftrace.core.module_trace import CallRecord, GoldenLayers, ModuleRecord, ModuleTrace, TraceOrigin
from difftrace.core.probe_steps import check_probes, with_probes
from difftrace.core.recording import Budget

GOLDEN = "run(3, 4)"
BUDGET = Budget(0.5, 0.25, 0.125, {"basis": "two hosts"})


@pytest.fixture
def golden(evident, run_pytest, pytester) -> Path:
    evident(GOLDEN)
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    path: Path = pytester.path / "__difftrace__" / "test_x" / "test_a.json"
    return path


@pytest.mark.parametrize("observed", ["run(3, 4, rms=1e-5)", "run(3, 4, rms=1e-5, where='lab')", "traj(3, 4)"])
def test_equal_decisions_leave_the_file_alone_whatever_the_evidence(golden, evident, run_pytest, observed: str):
    before = golden.read_bytes()
    evident(observed)
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert golden.read_bytes() == before
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 changed"])
    assert golden.read_bytes() != before
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])


def test_a_baseline_without_evidence_gets_some_only_where_all_is_asked_for(suite, evident, run_pytest, baselines):
    suite("def test_a(difftrace): difftrace.check(traj(3, 4))\n")
    run_pytest("--difftrace-record")
    before = baselines()
    evident(GOLDEN)
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert baselines() == before
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 changed"])
    [data] = baselines().values()
    assert "evidence" in json.loads(data)["sequences"][0]


@pytest.mark.parametrize("observed", ["run(3, 4, weights='f')", "run(3, 4, seed=1)", "run(3, 4, rms=0.1)"])
def test_what_fails_with_equal_decisions_can_be_recorded(golden, evident, run_pytest, observed: str):
    evident(observed)
    run_pytest("--difftrace-verify").assert_outcomes(failed=1)
    run_pytest("--difftrace-record=missing").assert_outcomes(failed=1)
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 changed"])
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])


def test_a_calibrated_budget_is_kept(golden, evident, run_pytest):
    save(golden, replace(load(golden), budget=BUDGET))
    before = golden.read_bytes()
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert golden.read_bytes() == before
    evident("run(3, 5, weights='f')")
    result = run_pytest("--difftrace-record")
    result.stdout.fnmatch_lines(["difftrace: 1 changed"])
    result.stdout.no_fnmatch_line("*without the budget*")
    assert load(golden).budget == BUDGET


def test_a_budget_of_another_dtype_is_dropped_and_missed(golden, evident, run_pytest):
    save(golden, replace(load(golden), budget=BUDGET))
    evident("run(3, 5, dtype='bfloat16')")
    run_pytest("--difftrace-record").stdout.fnmatch_lines(
        ["difftrace: 1 changed", "difftrace: 1 baseline was recorded without the budget of the one before*"]
    )
    assert load(golden).budget is None


@pytest.fixture
def probed(golden) -> bytes:
    """The content of the baseline with a probe."""
    recorded = load(golden)
    origin = TraceOrigin(recorded.digest, 1, None, recorded.model, dict(recorded.environment))
    trace = ModuleTrace((ModuleRecord(("",), "M", True, ()),), (), (CallRecord(0, None, (), ()),), False)
    save(golden, with_probes(recorded, [GoldenLayers(origin, trace)]))
    return golden.read_bytes()


def test_probes_stay_while_the_run_does(golden, probed, evident, run_pytest):
    for scope in ("missing", "changed", "all"):
        run_pytest(f"--difftrace-record={scope}").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
        assert golden.read_bytes() == probed
    evident("run(3, 4, rms=1e-5, where='lab')")
    result = run_pytest("--difftrace-record=all")
    result.stdout.fnmatch_lines(["difftrace: 1 changed"])
    result.stdout.no_fnmatch_line("*without the probes*")
    assert load(golden).probes
    check_probes(load(golden))


@pytest.mark.parametrize(
    "observed",
    ["run(3, 5)", "run(3, 4, weights='f')", "run(3, 4, rms=0.1)", "run(3, 4, dtype='bfloat16')", "traj(3, 4)"],
)
def test_probes_of_another_run_are_dropped_and_missed(golden, probed, evident, run_pytest, observed: str):
    evident(observed)
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(
        ["difftrace: 1 changed", "difftrace: 1 baseline was recorded without the probes of the one before*"]
    )
    assert load(golden).probes == ()
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])


def test_a_baseline_of_a_platform_of_its_own_leaves_the_shared_one_its_probes(golden, probed, evident, run_pytest):
    evident("run(3, 5, where='lab')")
    result = run_pytest("--difftrace-record", "-o", "difftrace_per_platform=true")
    result.stdout.fnmatch_lines(["difftrace: 1 new"])
    result.stdout.no_fnmatch_line("*without the probes*")
    assert golden.read_bytes() == probed
    assert load(golden.with_name("test_a@lab.json")).probes == ()


@pytest.mark.parametrize(
    ("second", "recorded", "lines"),
    [
        ("run(3, 4, rms=1e-5)", True, ["difftrace: 1 new", "difftrace: 1 baseline was recorded of a test whose two *"]),
        (
            "run(3, 4, rms=0.1)",
            False,
            [
                "difftrace: not recorded: two runs of this test differ, though no decision does",
                "RUN_TO_RUN: *its logits differ at step 0.",
                "difftrace: 1 not reproducible",
            ],
        ),
        (
            "run(3, 4, seed=1)",
            False,
            [
                "difftrace: not recorded: two runs of this test differ, though no decision does",
                "CONFIG: The sampler's argument seed differs: 0 → 1.",
            ],
        ),
        (
            "run(3, 5, rms=1e-5)",
            False,
            [
                "difftrace: not recorded: two runs of this test differ at step 1, position 3",
                "RUN_TO_RUN: *its logits differ at step 0.",
            ],
        ),
    ],
)
def test_two_runs_have_to_decide_alike_and_pass_as_each_others_verification(
    evident, run_pytest, baselines, second: str, recorded: bool, lines: list[str]
):
    evident("runs.pop(0)", setup=f"runs = [run(3, 4), {second}]")
    result = run_pytest("--difftrace-record")
    result.stdout.fnmatch_lines(lines)
    assert bool(baselines()) == recorded


def test_a_policy_that_forbids_drift_forbids_recording_what_drifts(evident, run_pytest, baselines):
    evident("runs.pop(0)", setup="runs = [run(3, 4), run(3, 4, rms=1e-5)]")
    run_pytest("--difftrace-record", "--difftrace-fail-on=DRIFT").assert_outcomes(failed=1)
    assert not baselines()
