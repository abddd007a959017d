"""Verifying runs of the llada fixture by scoring golden canvases, whole (forced) or in part (sampled)."""

from __future__ import annotations

import copy
import re
import time
from pathlib import Path
from typing import Any

import pytest

import difftrace.verification.runner
from difftrace.core.errors import SamplerError
from difftrace.core.run import Run
from difftrace.models import LoadedModel
from difftrace.verification import DeferredRunner, ModelRunner

BODY = """
import torch

def test_a(llada, difftrace):
    model = llada.loaded.model
    {change}
    run = llada.generate({prompt}, gen_length=16, steps=16{more})
    difftrace.check(run)
    {after}
"""
HALVED = "model.get_submodule('model.transformer.ff_out').weight.data[::2] *= 0.5"
# Wrong once at most 11 masks are left: from step 5 on. Each session loads the model anew, so the hook goes with it.
LATE = """def turn(module, given, returned, mask=llada.loaded.config.mask_token_id):
        returned.logits[(given[0] == mask).sum(-1) <= 11] *= -1
    model.register_forward_hook(turn)"""
# Wrong in its first calls only: those that score the golden canvases, and two of them again as recorded.
AT_FIRST = """calls = []
    def turn(module, given, returned):
        calls.append(1)
        returned.logits.mul_(-1 if len(calls) <= 3 else 1)
    model.register_forward_hook(turn)"""

STEPS = re.compile(r"^\d+ of .*steps.* diverge|^none of .*steps.* diverges")

REAL_GMTIME = time.gmtime


@pytest.fixture
def write(suite):
    def write(change="pass", prompt="'12 + 30 = '", more="", after="pass") -> Path:
        return suite(BODY.format(change=change, prompt=prompt, more=more, after=after))

    return write


@pytest.fixture
def golden(write, run_pytest) -> None:
    write()
    run_pytest("--difftrace-record").assert_outcomes(passed=1)


@pytest.fixture
def denoised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that something is denoised."""
    calls: list[int] = []
    generate = difftrace.verification.runner.generate

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return generate(*given, **more)

    monkeypatch.setattr("difftrace.verification.runner.generate", counted)
    return calls


def headline(result: pytest.RunResult) -> str:
    return next(line for line in result.outlines if re.match("difftrace: .*differs from its baseline", line))


def test_forced_passes_on_a_good_baseline_without_denoising(golden, write, run_pytest, denoised, reference_model):
    text = ModelRunner(reference_model).generate("12 + 30 = ", gen_length=16, steps=16).text
    denoised.clear()
    write(after=f"assert run.text == {text!r} and len(run.trajectories) == 1 and run.trajectories[0].steps.size == 16")
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "difftrace: mode verify, policy exact, strategy forced, baselines in *",
            "difftrace: 1 verified",
            "difftrace: 1 verified by scoring golden canvases (decisions, and logits by budget; in batches; *)",
        ]
    )
    assert not denoised


def test_forced_fails_where_a_rerun_does_and_names_all_divergent_steps(golden, write, run_pytest):
    write(change=LATE)
    rerun = run_pytest("--difftrace-verify")
    forced = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    for result in (rerun, forced):
        result.assert_outcomes(failed=1)
    assert headline(forced) == headline(rerun)
    assert " at step 5, position " in headline(forced)
    assert not [line for line in rerun.outlines if STEPS.search(line)]
    [line] = [line for line in forced.outlines if STEPS.search(line)]
    assert re.match(r"\d+ of 16 steps diverge: 5[-,].*; scored in batches of \d+, those that differed again as", line)
    forced.stdout.no_fnmatch_line("*verified by scoring*")


def test_logits_beyond_the_budget_fail_although_every_decision_is_the_golden(golden, write, run_pytest):
    write(change="model.model.transformer.blocks[1].register_forward_hook(lambda _m, _i, out: out * 1.001)")
    rerun = run_pytest("--difftrace-verify")
    forced = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    for result in (rerun, forced):
        result.assert_outcomes(failed=1)
    expected = "difftrace: NUMERIC: run differs from its baseline from step 0 on, though no decision does"
    assert headline(forced) == headline(rerun) == expected
    [line] = [line for line in forced.outlines if STEPS.search(line)]
    assert line.startswith("none of 16 steps diverges; logits beyond noise at step 0; ")


def test_logits_that_leave_the_golden_only_when_scored_are_a_run_that_does_not_repeat_itself(golden, write, run_pytest):
    write(change=AT_FIRST.replace("mul_(-1 ", "mul_(1.001 "))
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: RUN_TO_RUN: run differs*", "*its logits leave*"])


def test_drift_that_scoring_as_recorded_shows_passes_and_is_counted(golden, write, run_pytest, denoised, monkeypatch):
    monkeypatch.setattr("difftrace.verification.forced.batch_size", lambda *_given, **_more: 1)
    write(change=f"model.model.transformer.blocks[1].register_forward_hook(lambda _m, _i, out: out * {1 + 2**-22})")
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["difftrace: 1 verified (1 drifted within budget)"])
    assert not denoised


def test_sampled_says_what_it_checks_and_catches(golden, write, run_pytest, denoised, pytester):
    pytester.makeini("[pytest]\ndifftrace_strategy = sampled\ndifftrace_sample_seed = 0")
    result = run_pytest("--difftrace-verify")
    result.stdout.fnmatch_lines(
        [
            "difftrace: mode verify, policy exact, strategy sampled (8 steps, seed 0), *",
            "difftrace: 1 verified by scoring *, 8 of 16 *(seed 0): *at least 4 of 16 *95 %, * 50 % (decisions, *)",
        ]
    )
    assert not denoised
    write(after="assert run.text")
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)
    assert len(denoised) == 1
    write(change=HALVED)
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["* of the 8 steps chosen at random of 16 (seed 0) diverge*: *"])


def test_every_day_samples_other_steps_unless_a_seed_is_given(golden, run_pytest, monkeypatch):
    def sampled(*arguments: str) -> str:
        result = run_pytest("--difftrace-verify", "--difftrace-strategy=sampled", *arguments)
        result.assert_outcomes(passed=1)
        return next(line for line in result.outlines if "strategy sampled" in line)

    for day in (0, 86400):
        monkeypatch.setattr("pytest_difftrace.step_sampling.time.gmtime", lambda day=day: REAL_GMTIME(day))
        assert f"strategy sampled (8 steps, seed 1970010{1 + day // 86400}), " in sampled()
    assert "strategy sampled (4 steps, seed 7), " in sampled("--difftrace-sample-steps=4", "--difftrace-sample-seed=7")


def test_workers_of_xdist_sample_by_the_seed_of_their_controller(golden, suite, run_pytest, monkeypatch):
    pytest.importorskip("xdist")
    suite(
        "def test_a(llada, difftrace, pytestconfig):\n"
        "    from pytest_difftrace.session import SESSION\n"
        "    assert pytestconfig.stash[SESSION].settings.sampling == (8, 20010909)\n"
    )
    monkeypatch.setattr("pytest_difftrace.step_sampling.time.gmtime", lambda: REAL_GMTIME(10**9))
    run_pytest("-n", "1", "--difftrace-verify", "--difftrace-strategy=sampled").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--difftrace-sample-steps=4"], "*chooses steps at random: it goes with --difftrace-strategy=sampled"),
        (
            ["--difftrace-strategy=sampled", "--difftrace-sample-steps=0"],
            "*number of steps to check, at least 1, not 0",
        ),
        (["--difftrace-strategy=sampled", "-o", "difftrace_sample_seed=x"], "*_seed = 'x': it takes a whole number"),
    ],
)
def test_what_cannot_be_sampled_is_a_usage_error(write, run_pytest, arguments: list[str], says: str):
    write()
    result = run_pytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])


@pytest.mark.parametrize("strategy", ["forced", "sampled"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [({"prompt": "'12 + 31 = '"}, "INPUT"), ({"more": ", block_length=8"}, "CONFIG"), ({"more": ", seed=1"}, "CONFIG")],
)
def test_a_run_that_is_declared_another_is_denoised_and_told_as_ever(
    golden, write, run_pytest, strategy: str, change: dict[str, str], expected: str
):
    write(**change)
    rerun = run_pytest("--difftrace-verify")
    result = run_pytest("--difftrace-verify", f"--difftrace-strategy={strategy}")
    result.assert_outcomes(failed=1)
    assert headline(result) == headline(rerun)
    assert headline(result).startswith(f"difftrace: {expected}: ")
    result.stdout.no_fnmatch_line("* steps* diverge*")


def test_a_missing_baseline_is_told_as_ever(write, run_pytest, baselines):
    write()
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: no baseline", "  missing: __difftrace__/test_x/test_a.json"])
    assert not baselines()


def test_a_divergence_that_a_rerun_does_not_show_fails_as_a_run_that_does_not_repeat_itself(golden, write, run_pytest):
    write(change=AT_FIRST)
    run_pytest("--difftrace-verify", "--difftrace-strategy=rerun").stdout.fnmatch_lines(["*at step 0, position*"])
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "difftrace: RUN_TO_RUN: run differs from its baseline*",
            "2 of 16 steps diverge: 0-1; *",
            "RUN_TO_RUN: The run does not repeat itself: scored on the golden canvases it leaves the golden*",
            "  *step 0, denoised nowhere.",
            "Recording would not help*",
        ]
    )
    run_pytest("--difftrace-strategy=forced", "--difftrace-policy=near-tie").assert_outcomes(failed=1)


def test_a_run_that_was_asked_for_before_its_check_is_compared_as_it_is(golden, suite, run_pytest, denoised):
    suite(
        "def test_a(llada, difftrace):\n"
        "    run = llada.generate('12 + 30 = ', gen_length=16, steps=16)\n"
        "    assert run.text\n"
        "    difftrace.check(run)\n"
    )
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*by scoring golden canvases*")
    assert len(denoised) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--difftrace-policy=tokens"], "policy tokens judges where a whole run ends"),
        (["--difftrace-fail-on=drift"], "DRIFT may not show in scored canvases"),
    ],
)
def test_what_scored_canvases_cannot_tell_is_rerun_and_the_header_says_so(
    golden, run_pytest, denoised, arguments: list[str], why: str
):
    result = run_pytest("--difftrace-verify", "--difftrace-strategy=forced", *arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"difftrace: mode verify, *, strategy forced (rerun here: {why}), baselines in *"])
    result.stdout.no_fnmatch_line("*by scoring golden canvases*")
    assert len(denoised) == 1


def test_recording_and_bare_trajectories_know_no_strategy(suite, run_pytest, write, denoised):
    write()
    result = run_pytest("--difftrace-record", "--difftrace-strategy=forced")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("difftrace: mode *strategy*")
    # Once, then twice in one seeding.
    assert len(denoised) == 3
    suite("def test_a(difftrace): difftrace.check(traj(3, 4))\n")
    run_pytest("--difftrace-record=all")
    run_pytest("--difftrace-verify", "--difftrace-strategy=forced").stdout.fnmatch_lines(["difftrace: 1 verified"])


def test_an_unknown_strategy_is_a_usage_error(write, run_pytest, pytester):
    write()
    assert run_pytest("--difftrace-strategy=fast").ret == pytest.ExitCode.USAGE_ERROR
    pytester.makeini("[pytest]\ndifftrace_strategy = fast")
    result = run_pytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: ini option difftrace_strategy = 'fast': it takes rerun, forced or sampled"])


def test_a_deferred_run_is_the_run_it_stands_for(reference_model: LoadedModel, denoised):
    arguments: dict[str, Any] = {"gen_length": 8, "steps": 4, "block_length": 4}
    prompts = ["7 + 5 = ", "sort 9 2 7 4: "]
    run = ModelRunner(reference_model).generate(prompts, **arguments)
    denoised.clear()
    deferred = DeferredRunner(reference_model).generate(prompts, **arguments)
    known = ("model", "sampler", "environment", "prompt_texts")
    assert [getattr(deferred, name) for name in known] == [getattr(run, name) for name in known]
    assert not denoised
    others = ("trajectories", "texts", "pieces", "evidences")
    assert [getattr(deferred, name) for name in others] == [getattr(run, name) for name in others]
    assert deferred.to_baseline(None) == run.to_baseline(None)
    assert deferred == run
    assert len(denoised) == 1
    for copied in (copy.copy(deferred), copy.deepcopy(deferred)):
        assert isinstance(copied, Run)
        assert copied == run
        assert copied.repeat is None
    assert len(denoised) == 1


def test_a_deferred_run_refuses_at_once_what_cannot_run(reference_model: LoadedModel):
    with pytest.raises(SamplerError, match="outside the vocabulary"):
        DeferredRunner(reference_model).generate([10**6], gen_length=4, steps=4)
