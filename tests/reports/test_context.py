"""What else differs is told by name, the best suspects first, and what the environments have to do with each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from difftrace.core.comparison import compare_sequences
from difftrace.core.recording import Baseline, SamplerIdentity
from difftrace.reports.columns import width
from difftrace.reports.context import environments_line, other_differences
from difftrace.reports.failure import divergence_text

CANARY = "sha256:" + "a" * 64
HERE = {
    "platform_key": "cpu",
    "dtype": "float32",
    "threads": 1,
    "cpu_capability": "AVX512",
    "attention_backend": "math",
    "cpu": "AMD EPYC",
    "torch": "2.13.0",
    "canary": CANARY,
}


def told(golden: Baseline, observed: Baseline) -> list[str]:
    divergence = compare_sequences(*([r.trajectory for r in b.sequences] for b in (golden, observed)))
    text = divergence_text(golden, observed, divergence, subject="run differs", where=[], advice=[])
    return text.split("\n")


def line(golden: Baseline, observed: Baseline, columns: int = 100) -> str | None:
    return environments_line(golden, observed, ("golden", "observed"), columns)


def test_a_run_at_another_thread_count_is_named_so(recorded):
    there = {**HERE, "threads": 2, "canary": "sha256:" + "b" * 64}
    lines = told(recorded([5], environment=HERE), recorded([6], environment=there))
    start = lines.index("what else differs (golden → observed):")
    assert lines[start + 1] == "  environment.threads: 1 → 2"
    assert lines[-1] == "environments: not comparable: threads, canary"


def test_settings_come_before_versions_and_versions_before_names(recorded):
    there = {**HERE, "cpu": "Xeon", "torch": "2.6", "attention_backend": "flash", "threads": 2, "extra": 1}
    names = [
        text.split(":")[0]
        for text in other_differences(recorded([5], environment=HERE), recorded([6], environment=there))
    ]
    assert names == [f"environment.{name}" for name in ("threads", "attention_backend", "torch", "cpu", "extra")]


def test_model_and_sampler_come_before_the_environment(recorded):
    golden = replace(recorded([5], environment=HERE), sampler=SamplerIdentity("llada", 1, {"steps": 4}))
    observed = replace(
        recorded([5], environment={**HERE, "threads": 2}), sampler=SamplerIdentity("llada", 1, {"steps": 8})
    )
    assert other_differences(golden, observed) == ["sampler.steps: 4 → 8", "environment.threads: 1 → 2"]


def test_a_field_one_side_does_not_have_is_nothing_there(recorded):
    old = {name: value for name, value in HERE.items() if name not in ("canary", "cpu")}
    lines = other_differences(recorded([5], environment=old), recorded([6], environment=HERE))
    assert lines == ["environment.cpu: nothing → AMD EPYC", f"environment.canary: nothing → {CANARY[:27]}…"]
    assert line(recorded([5], environment=old), recorded([6], environment=HERE)) == (
        "environments: not comparable: no canary"
    )


def test_equal_environments_point_at_model_and_sampler(recorded):
    lines = told(recorded([5], environment=HERE), recorded([6], environment=HERE))
    assert lines[-2:] == ["", "environments: identical, so look at model or sampler first"]
    assert not any("what else differs" in text for text in lines)


def test_agreeing_canaries_point_at_model_and_sampler_too(recorded):
    there = {**HERE, "torch": "2.6"}
    assert line(recorded([5], environment=HERE), recorded([6], environment=there)) == (
        "environments: bit-comparable (their canaries agree), so look at model or sampler first"
    )


def test_a_side_that_does_not_say_where_it_ran_is_named(recorded):
    bare, known = recorded([5]), recorded([6], environment=HERE)
    assert line(bare, known) == "environments: not comparable: golden does not say where it ran"
    assert line(known, bare) == "environments: not comparable: observed does not say where it ran"
    assert environments_line(bare, known, ("run 1", "run 2"), 100) == (
        "environments: not comparable: run 1 does not say where it ran"
    )
    assert line(bare, bare) is None


@pytest.mark.parametrize("name", ["k" * 90, "語" * 90, "\x1b[31m\u202e"])
def test_the_line_is_one_printable_line_of_a_hundred_columns(recorded, name: str):
    sides = ({f"{name}{index}": side for index in range(30)} for side in "ab")
    found = line(*(recorded([5], environment=side) for side in sides))
    assert found is not None
    assert found.isprintable()
    assert width(found) <= 100


def test_runs_with_full_fingerprints_stay_within_forty_lines(recorded):
    every = {f"switch{index}": index for index in range(60)}
    sides = ({**HERE, **every}, {**HERE, **dict.fromkeys(every, -1), "threads": 2})
    golden, observed = (
        recorded(tokens, text="語" * 500 + str(tokens[-1]), environment=side)
        for tokens, side in zip(([5] * 300, [5] * 299 + [6]), sides, strict=True)
    )
    lines = told(golden, observed)
    assert len(lines) <= 40 - 8  # what the caller puts above and below
    assert max(map(width, lines)) <= 100
    assert "  environment.threads: 1 → 2" in lines
