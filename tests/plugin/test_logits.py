"""Logits beside a baseline: recorded with it, compared where a run differs, and not missed where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difftrace.core.baseline import load
from difftrace.core.logits_codec import Lossy
from difftrace.core.logits_file import open_logits

# A test whose run comes with logits [2, 1, 4, 10] of ones, but for one of step 1.
WITH_LOGITS = """
import numpy as np
from dataclasses import replace
from difftrace.core.logits_codec import Lossless
from difftrace.core.logits_layout import LogitsLayout
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.logits_writer import save_logits

def logged(made, value):
    path = Path('made.logits')
    values = np.ones((2, 1, 4, 10), dtype='<f4')
    values[1, 0, 3, 7] = value
    layout = LogitsLayout('float32', 2, 1, 10, (4,))
    return replace(made, logits=RecordedLogits(path, save_logits(path, layout, Lossless(), [values.view('<u4')])))
"""
PLAIN, LOGGED = "run(3, 4)", "logged(run(3, 4), 1.0)"
OTHER = "logged(run(3, 5), 1.5)"


@pytest.fixture
def check(evident):
    return lambda expression: evident(expression, WITH_LOGITS)


@pytest.fixture
def golden(pytester) -> Path:
    path: Path = pytester.path / "__difftrace__" / "test_x" / "test_a.json"
    return path


def test_they_are_recorded_beside_the_baseline_and_compared_where_it_differs(check, run_pytest, baselines, golden):
    check(LOGGED)
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 new"])
    assert [path.name for path in sorted(golden.parent.iterdir())] == ["test_a.json", "test_a.logits"]
    baseline = load(golden)
    assert baseline.logits == open_logits(golden.with_name("test_a.logits")).reference
    before = baselines()
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert baselines() == before
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])

    check(OTHER)
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(
        ["*logits at step 1: 1 of 40 differ, by at most 0.5 (position 3, token 7: 1 and 1.5)"]
    )
    check("run(3, 5)")
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["*logits: those of this run were not recorded, so*"])


def test_without_the_file_decisions_are_verified_and_its_absence_is_told_where_it_matters(check, run_pytest, golden):
    check(LOGGED)
    run_pytest("--difftrace-record")
    golden.with_name("test_a.logits").unlink()
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*test_a.logits*")
    check(OTHER)
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(
        ["*logits: test_a.logits is not there, so exact differences are not known"]
    )


def test_a_file_that_is_not_there_is_recorded_again_where_all_is_asked_for(check, run_pytest, golden):
    check(LOGGED)
    run_pytest("--difftrace-record")
    golden.with_name("test_a.logits").unlink()
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 changed"])
    assert golden.with_name("test_a.logits").exists()


def test_a_file_of_other_logits_is_a_clear_error(check, run_pytest, golden):
    check(LOGGED)
    run_pytest("--difftrace-record")
    side = golden.with_name("test_a.logits")
    check(OTHER)
    right = side.read_bytes()
    run_pytest("--difftrace-record")
    other = side.read_bytes()
    assert other != right
    side.write_bytes(right)
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_a.logits: holds other logits (sha256:*) than test_a.json was recorded with*"])
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 changed"])
    assert side.read_bytes() == other


def test_a_baseline_recorded_again_without_logits_leaves_none_behind(check, run_pytest, golden):
    check(LOGGED)
    run_pytest("--difftrace-record")
    check(PLAIN)
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert golden.with_name("test_a.logits").exists()
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 changed"])
    assert [path.name for path in golden.parent.iterdir()] == ["test_a.json"]
    assert "logits" not in json.loads(golden.read_bytes())


def test_the_llada_fixture_records_them_by_name(suite, run_pytest, golden, conformance_folder, conformance_model):
    call = "llada.generate([1, 2, 3], gen_length=4, steps=4, record='logits', logits='lossy:0.01')"
    suite(f"def test_a(llada, difftrace): difftrace.check({call})\n")
    arguments = [f"--difftrace-model={conformance_folder}"]
    run_pytest(*arguments, "--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 new"])
    file = open_logits(golden.with_name("test_a.logits"))
    assert file.method == Lossy(0.01)
    assert (file.layout.steps, file.layout.lengths) == (4, (7,))
    file.check()
    for strategy in ("rerun", "forced"):
        result = run_pytest(*arguments, "--difftrace-verify", f"--difftrace-strategy={strategy}")
        result.stdout.fnmatch_lines(["difftrace: 1 verified*"])
