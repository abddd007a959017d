from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from difftrace.core.baseline import Baseline, SamplerIdentity, SequenceRecord, TestId
from difftrace.core.errors import RunError, TrajectoryError
from difftrace.core.evidence import Evidence
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory

Make = Callable[..., Trajectory]
Simulated = Callable[..., tuple[Trajectory, Evidence]]


def test_text_is_that_of_the_only_sequence(random_trajectory: Make) -> None:
    assert Run((random_trajectory(),), ("42",)).text == "42"


def test_text_of_a_batch_is_refused(random_trajectory: Make) -> None:
    with pytest.raises(RunError, match=r"holds 2 sequences; use \.texts\[i\]"):
        _ = Run((random_trajectory(), random_trajectory()), ("a", "b")).text


def test_text_without_a_tokenizer_is_refused(random_trajectory: Make) -> None:
    with pytest.raises(RunError, match="without a tokenizer"):
        _ = Run((random_trajectory(),)).text


def test_a_run_has_a_sequence_and_a_text_for_each(random_trajectory: Make) -> None:
    with pytest.raises(RunError, match="at least one"):
        Run(())
    with pytest.raises(RunError, match="texts has 2 entries for 1 trajectories"):
        Run((random_trajectory(),), ("a", "b"))
    with pytest.raises(RunError, match="prompt_texts has 0 entries"):
        Run((random_trajectory(),), ("a",), ())


def test_to_baseline_keeps_everything(random_trajectory: Make) -> None:
    first, second = random_trajectory(), random_trajectory(seed=1)
    sampler = SamplerIdentity("llada", 1, {"steps": 64})
    test = TestId("test_a.py", "test_b", "second")
    run = Run((first, second), ("a", "b"), None, None, sampler, {"device": "cpu"}, {1: "x"})
    assert run.to_baseline(test) == Baseline(
        test,
        None,
        sampler,
        {"device": "cpu"},
        {1: "x"},
        (SequenceRecord(first, "a", None), SequenceRecord(second, "b", None)),
    )


def test_the_evidence_of_a_run_is_kept_beside_its_trajectories(simulated: Simulated, random_trajectory: Make) -> None:
    trajectory, evidence = simulated()
    run = Run((trajectory, random_trajectory()), evidences=(evidence, None))
    records = run.to_baseline(None).sequences
    assert [record.evidence for record in records] == [evidence, None]


def test_the_evidence_of_a_run_is_that_of_its_trajectories(simulated: Simulated, random_trajectory: Make) -> None:
    trajectory, evidence = simulated()
    with pytest.raises(RunError, match="evidences has 2 entries for 1 trajectories"):
        Run((trajectory,), evidences=(evidence, evidence))
    with pytest.raises(TrajectoryError, match="evidence is of 16 events, but the trajectory has 128"):
        Run((random_trajectory(),), evidences=(evidence,))


def test_what_repeats_a_run_is_no_part_of_it_and_not_copied(random_trajectory: Make) -> None:
    run = Run((random_trajectory(),))
    repeatable = replace(run, repeat=lambda: run)
    assert repeatable == run
    assert repeatable.to_baseline(None) == run.to_baseline(None)
    assert copy.deepcopy(repeatable).repeat is None
    assert copy.deepcopy(repeatable) == run
    assert repeatable.repeat is not None
