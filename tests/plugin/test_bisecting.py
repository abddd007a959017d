"""A failing run of the llada fixture is repeated, and on request its model is bisected."""

from __future__ import annotations

from pathlib import Path

import pytest

import difftrace.verification.bisect
import difftrace.verification.runner  # noqa: F401
from difftrace.core.baseline import load, save
from difftrace.core.probe_steps import with_probes
from difftrace.verification.probe_steps import golden_probes

BODY = """
import torch

def test_a(llada, difftrace):
    model = llada.loaded.model
    {change}
    difftrace.check(llada.generate([1, 2, 3], gen_length=4, steps=4))
"""
NOTHING = "pass"
# Adds another number at each call, as a kernel that sums in no fixed order would.
NOISY = """calls = []
    model.model.transformer.ff_out.register_forward_hook(
        lambda module, given, returned: (calls.append(1), returned + len(calls) * torch.arange(320.0))[1])"""
# Dropout left on, which a run repeats under the same seed.
DROPPING = """if not hasattr(model, "dropping"):
        model.dropping = model.model.transformer.ff_out.register_forward_hook(
            lambda module, given, returned: torch.nn.functional.dropout(returned, 0.1, True))"""
# A layer whose results are no numbers.
BROKEN = """model.model.transformer.blocks[1].ff_norm.register_forward_hook(
        lambda module, given, returned: returned * float("nan"))"""
NUDGED = "torch.nn.init.ones_(next(model.parameters()))"


@pytest.fixture
def arguments(conformance_folder: Path, conformance_model: object) -> list[str]:
    return [f"--difftrace-model={conformance_folder}"]


@pytest.fixture
def golden(suite, run_pytest, arguments) -> None:
    suite(BODY.format(change=NOTHING))
    run_pytest(*arguments, "--difftrace-record").assert_outcomes(passed=1)


def block(result: pytest.RunResult) -> list[str]:
    """Return the lines of the bisection, at the end of the failure."""
    lines = result.outlines
    start = next(index for index, line in enumerate(lines) if line.startswith("bisect: "))
    end = next(index for index in range(start, len(lines)) if lines[index].startswith(("difftrace: ", "=====")))
    return lines[start:end]


def test_a_failing_run_is_repeated_and_its_model_bisected(golden, suite, run_pytest, arguments):
    suite(BODY.format(change=NUDGED))
    result = run_pytest(*arguments, "--difftrace-verify")
    result.stdout.fnmatch_lines(["difftrace: NUMERIC: run differs from its baseline at step 0*"])
    result.stdout.no_fnmatch_line("*repeats itself:*")
    result.stdout.no_fnmatch_line("bisect:*")
    lines = block(run_pytest(*arguments, "--difftrace-verify", "--difftrace-bisect"))
    assert lines[0].startswith("bisect: the model, run twice on the golden canvas before step 0 (")
    assert lines[1] == "  every module repeats itself bit for bit; there is no golden side to compare with"
    assert "    difftrace layers __difftrace__/test_x/test_a.json --step 0 --into-baseline" in lines
    assert len(lines) <= 12


def test_a_probe_in_the_baseline_names_the_module(golden, suite, run_pytest, arguments, pytester, conformance_model):
    path = pytester.path / "__difftrace__" / "test_x" / "test_a.json"
    recorded = load(path)
    save(path, with_probes(recorded, golden_probes(conformance_model, recorded, [2])))
    run_pytest(*arguments, "--difftrace-verify").assert_outcomes(passed=1)
    run_pytest(*arguments, "--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    suite(BODY.format(change=NUDGED))
    lines = block(run_pytest(*arguments, "--difftrace-verify", "--difftrace-bisect"))
    ran = "the golden canvas before step 2, the probe nearest to step 0"
    assert lines[0].startswith(f"bisect: the model, run twice on {ran} (")
    assert lines[1] == "  first difference: model.transformer.wte (Embedding)"
    assert lines[2] == "    everything before it agrees, but its parameters differ:"
    assert len(lines) <= 12


def test_a_model_that_does_not_repeat_itself_is_told_with_its_module(golden, suite, run_pytest, pytester, arguments):
    suite(BODY.format(change=NOISY))
    pytester.makeini("[pytest]\ndifftrace_bisect = true")
    result = run_pytest(*arguments, "--difftrace-verify")
    result.stdout.fnmatch_lines(["difftrace: RUN_TO_RUN: run differs from its baseline at step 0*", "Recording would*"])
    lines = block(result)
    assert lines[1] == "  RUN_TO_RUN: the same canvas twice gives different results"
    assert lines[2].startswith("    first in model.transformer.ff_out (Linear)")
    assert len(lines) <= 12


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (DROPPING, ["difftrace: not recorded: two runs of this test differ*", "RUN_TO_RUN: *"]),
        (
            BROKEN,
            [
                "difftrace: not recorded: the model returned NaN or infinite logits, first at step 0",
                "difftrace: 1 not *",
            ],
        ),
    ],
)
def test_a_model_that_draws_random_numbers_or_returns_nan_is_not_recorded(
    golden, suite, run_pytest, pytester, arguments, change: str, lines: list[str]
):
    path = pytester.path / "__difftrace__" / "test_x" / "test_a.json"
    before = path.read_bytes()
    suite(BODY.format(change=change))
    result = run_pytest(*arguments, "--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(lines)
    assert path.read_bytes() == before


def test_a_model_that_returns_nan_is_told_with_the_module_that_it_begins_in(golden, suite, run_pytest, arguments):
    suite(BODY.format(change=BROKEN))
    result = run_pytest(*arguments, "--difftrace-verify", "--difftrace-bisect")
    result.stdout.fnmatch_lines(["difftrace: NON_FINITE: run differs from its baseline*"])
    result.stdout.fnmatch_lines(["Recording is refused where the model returns NaN or infinite logits.*"])
    result.stdout.no_fnmatch_line("If the new run is right, record it:")
    lines = block(result)
    assert lines[1] == "  NON_FINITE: NaN or infinite values begin in model.transformer.blocks.1.ff_norm (RMSNorm)"
    assert lines[2].startswith("    it was given finite values and returned ")
    assert len(lines) <= 12


def test_an_error_of_the_bisection_is_one_line(golden, suite, run_pytest, arguments, monkeypatch):
    def refuse(*given: object, **more: object) -> None:
        raise RuntimeError("out of\nmemory " + "x" * 300)

    monkeypatch.setattr("difftrace.verification.bisect.bisect", refuse)
    suite(BODY.format(change=NUDGED))
    result = run_pytest(*arguments, "--difftrace-bisect")
    result.assert_outcomes(failed=1)
    [line] = block(result)
    assert line.startswith("bisect: not done: out of")
    assert len(line) <= 100
