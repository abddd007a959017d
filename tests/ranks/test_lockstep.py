"""Ranks in processes of their own: what each of them is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="ranks are those of torch.distributed")

from difftrace.core.run import Run  # noqa: E402
from difftrace.core.trajectory import Trajectory  # noqa: E402
from difftrace.ranks import agreed, current  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="needs torch with gloo"
)

GONE = ("last_is_gone", "after_that")

Play = Callable[..., list[dict[str, str]]]


def check_scenes(play: Play, size: int, *more: str) -> list[dict[str, str]]:
    """One test, since every process takes seconds to import torch."""
    last = size - 1
    told = play(
        size,
        "last_differs",
        "same",
        "last_raises",
        "first_makes_one_more",
        "same",
        "asked",
        "first_counts",
        "model",
        "engine",
        "requests",
        *more,
        *GONE,
    )
    others = [*range(last)]

    differ = {scenes["last_differs"] for scenes in told}
    assert len(differ) == 1, "every rank says the same"
    lines = differ.pop().splitlines()
    assert lines[0] == "RankError: ranks disagree"
    assert lines[1] == (
        f"  rank {last} parts from rank 0 at step 7, position 9: token 7 on rank 0, token 88 on rank {last}"
    )
    assert lines[2:] == (["  ranks 1, 2 decide as rank 0"] if size == 4 else [])
    assert all(scenes["same"] == "steps 12" for scenes in told), "they go on together after they disagreed"

    assert told[last]["last_raises"] == "ValueError: no memory\x1b[31m left"
    for rank in others:
        text = told[rank]["last_raises"]
        assert text.startswith("RankError: not every rank finished this run")
        assert f"rank {last}: run 3 raised ValueError: no memory\\x1b[31m left" in text

    for scenes in told:
        text = scenes["first_makes_one_more"]
        assert text.startswith("RankError: ranks are out of step")
        assert "rank 0: at the end of run 5" in text
        assert "done after 4 runs" in text

    assert {scenes["asked"] for scenes in told} == {str((True, *[False] * last))}
    assert {scenes["first_counts"] for scenes in told} == {"-7"}
    text = told[0]["model"]
    assert f"rank {last} parts from rank 0 at step " in text
    assert all(scenes["model"] == text for scenes in told)

    parts = f"rank {last} parts from rank 0 at step 2, position 3: token 7 on rank 0, token 8 on rank {last}"
    assert told[0]["engine"] == f"True True, {parts}, 1 (0, 1, 2)", "the coordinator stores what all agree on"
    for rank in range(1, size):
        assert told[rank]["engine"] == f"False False, {parts}, rank {rank} stores nothing; ask the engine of rank 0"

    for rank in range(size):
        long, short, failed, *stored = json.loads(told[rank]["requests"])
        for text in (long, short):
            assert text.startswith("ranks are out of step"), "equal decisions of different requests are no agreement"
        same = "rank 0" if size == 2 else "ranks 0-2"
        assert long.splitlines()[1:3] == [f"  {who}: at request '{'a' * 187}" for who in (same, f"rank {last}")]
        assert short.splitlines()[1:3] == [f"  {same}: at request 'c'", f"  rank {last}: at request 'b'"]
        told_failed = f"not every rank has this\n  {same}: at request 'd'\n  rank {last}: failed at request 'd':"
        assert failed == ("reported" if rank == last else f"{told_failed} MemoryError: no room")
        assert stored == ([] if rank else ["f"])

    assert not set(GONE) & set(told[last])
    for rank in others:
        assert "could not be compared: one ended" in told[rank]["last_is_gone"]
        assert told[rank]["after_that"] == "lost True"
    return told


def test_two_ranks_are_told_which_parts_where_which_raised_and_which_is_gone(play: Play) -> None:
    check_scenes(play, 2)


@pytest.mark.skipif(os.environ.get("DIFFTRACE_TEST_FULL") != "1", reason="DIFFTRACE_TEST_FULL=1 runs four ranks")
def test_four_ranks_are_told_as_much_and_a_model_spread_over_them_decides_as_a_whole_one(play: Play) -> None:
    told = check_scenes(play, 4, "tensor_parallel")
    assert {scenes["tensor_parallel"] for scenes in told} == {"42 True"}


def test_one_process_alone_has_no_ranks_and_its_runs_are_its_own() -> None:
    assert current() is None
    trajectory = Trajectory(prompt=[1], initial=[1, 9], steps=[0], positions=[1], tokens=[5], num_steps=1)
    run = Run((trajectory,))
    assert agreed(lambda: run) is run
