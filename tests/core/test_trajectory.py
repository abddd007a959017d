from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from difftrace.core.errors import TrajectoryError
from difftrace.core.trajectory import Trajectory

MASK = 99


def build(**changes: object) -> Trajectory:
    fields: dict[str, object] = {
        "prompt": [1, 2],
        "initial": [1, 2, MASK, MASK, MASK],
        "steps": [0, 0, 2],
        "positions": [2, 4, 3],
        "tokens": [10, 11, 12],
        "num_steps": 4,
    }
    return Trajectory(**{**fields, **changes})  # type: ignore[arg-type]


def test_canvas_is_the_state_before_a_step() -> None:
    trajectory = build()
    assert trajectory.canvas(0).tolist() == [1, 2, MASK, MASK, MASK]
    assert trajectory.canvas(1).tolist() == [1, 2, 10, MASK, 11]
    assert trajectory.canvas(2).tolist() == [1, 2, 10, MASK, 11]
    assert trajectory.canvas(3).tolist() == [1, 2, 10, 12, 11]
    assert trajectory.canvas(4).tolist() == trajectory.final.tolist() == [1, 2, 10, 12, 11]


@pytest.mark.parametrize("step", [-1, 5])
def test_canvas_outside_the_run_is_an_index_error(step: int) -> None:
    with pytest.raises(IndexError, match=rf"step {step} is not in 0\.\.4"):
        build().canvas(step)


def test_the_last_of_several_commits_at_a_position_counts() -> None:
    trajectory = build(steps=[0, 1, 2, 3, 3], positions=[2, 2, 2, 3, 2], tokens=[5, 6, 7, 8, 9])
    assert [trajectory.canvas(step)[2] for step in range(5)] == [MASK, 5, 6, 7, 9]


def test_a_prompt_position_may_be_committed() -> None:
    assert build(steps=[1], positions=[0], tokens=[50]).final.tolist() == [50, 2, MASK, MASK, MASK]


def test_events_are_kept_by_step_then_position_whatever_their_order() -> None:
    trajectory = build(steps=[2, 0, 0], positions=[3, 4, 2], tokens=[12, 11, 10])
    assert trajectory.steps.tolist() == [0, 0, 2]
    assert trajectory.positions.tolist() == [2, 4, 3]
    assert trajectory.tokens.tolist() == [10, 11, 12]
    assert trajectory == build()


def test_columns_are_read_only_copies_of_32_bits() -> None:
    steps = np.array([0, 0, 2], dtype=np.int32)
    trajectory = build(steps=steps)
    steps[0] = 3
    assert trajectory.steps[0] == 0
    assert trajectory.attention_mask is None
    for column in (trajectory.prompt, trajectory.initial, trajectory.steps, trajectory.positions, trajectory.tokens):
        assert column.dtype == np.int32
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_results_may_be_written_to_without_changing_the_trajectory() -> None:
    trajectory = build()
    trajectory.final[0] = 77
    trajectory.canvas(0)[0] = 77
    assert trajectory.final[0] == 1


def test_fields_cannot_be_reassigned() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build().num_steps = 3  # type: ignore[misc]


def test_sizes() -> None:
    trajectory = build()
    assert (trajectory.length, trajectory.num_events, trajectory.num_steps) == (5, 3, 4)
    assert repr(trajectory).startswith("<Trajectory: 5 positions, 4 steps, 3 events, sha256:")


def test_prompt_in_canvas_looks_after_the_padding() -> None:
    assert build().prompt_in_canvas
    assert build(initial=[0, 1, 2, MASK, MASK], padding=1).prompt_in_canvas
    assert not build(initial=[7, 7, MASK, MASK, MASK]).prompt_in_canvas
    assert not build(prompt=[MASK] * 6).prompt_in_canvas


def test_a_run_without_steps_or_events_is_valid() -> None:
    trajectory = build(steps=[], positions=[], tokens=[], num_steps=0)
    assert trajectory.final.tolist() == trajectory.initial.tolist()
    assert trajectory.num_events == 0


def test_an_attention_mask_that_hides_nothing_is_none() -> None:
    assert build(attention_mask=[1] * 5).attention_mask is None
    assert build(attention_mask=[True] * 5) == build()
    hiding = build(attention_mask=np.array([False, True, True, True, True])).attention_mask
    assert hiding is not None
    assert hiding.tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": [1, 3]},
        {"initial": [1, 2, MASK, MASK, 98]},
        {"steps": [0, 0, 3]},
        {"positions": [2, 3, 4]},
        {"tokens": [10, 11, 13]},
        {"num_steps": 5},
        {"padding": 1},
        {"attention_mask": [0, 1, 1, 1, 1]},
        {"steps": [0, 0], "positions": [2, 4], "tokens": [10, 11]},
    ],
)
def test_equality_and_digest_are_by_content(change: dict[str, object]) -> None:
    assert build() == build()
    assert hash(build()) == hash(build())
    assert build(**change) != build()
    assert build(**change).digest != build().digest
    assert build() != "something else"


def test_the_digest_follows_its_documented_layout() -> None:
    import hashlib
    import struct

    columns = [[1, 2], [1, 2, MASK, MASK, MASK], [], [0, 0, 2], [2, 4, 3], [10, 11, 12]]
    content = b"difftrace-trajectory-1\n" + struct.pack("<qq", 4, 0)
    for column in columns:
        content += struct.pack(f"<q{len(column)}i", len(column), *column)
    assert build().digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_copies_are_equal() -> None:
    assert copy.deepcopy(build()) == build()
    assert dataclasses.replace(build(), num_steps=9).num_steps == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": -1}, r"num_steps is -1; it must be in 0\.\."),
        ({"num_steps": 2.0}, "num_steps must be an integer, not float"),
        ({"num_steps": True}, "num_steps must be an integer, not bool"),
        ({"num_steps": 1 << 40}, "num_steps is 1099511627776; it must be in"),
        ({"num_steps": 2}, r"steps\[2\] is 2; it must be in 0\.\.1"),
        ({"num_steps": 0}, r"steps\[0\] is 0; there are no steps"),
        ({"initial": []}, "initial is empty"),
        ({"initial": [1, 2, -5, 3, 3]}, r"initial\[2\] is -5"),
        ({"initial": [[1, 2], [3, 4]]}, r"initial must have one dimension, not the shape \[2, 2\]"),
        ({"prompt": [1.5]}, "prompt must hold integers, not float64"),
        ({"prompt": ["a"]}, "prompt must hold integers, not <U1"),
        ({"prompt": [[1], [2, 3]]}, "prompt cannot be read as a column of integers"),
        ({"prompt": [1 << 31]}, r"prompt\[0\] is 2147483648"),
        ({"prompt": [1 << 80]}, "prompt must hold integers, not object"),
        ({"positions": [2, 4, 5]}, r"positions\[2\] is 5; it must be in 0\.\.4"),
        ({"tokens": [1, 2]}, "steps, positions and tokens must be equally long, not 3, 3 and 2"),
        ({"positions": [4, 4, 3]}, "position 4 is committed twice at step 0"),
        ({"padding": 6}, r"padding is 6; it must be in 0\.\.5"),
        ({"attention_mask": [1, 0]}, "attention_mask has 2 entries for a canvas of 5 positions"),
        ({"attention_mask": [2, 1, 1, 1, 1]}, r"attention_mask\[0\] is 2"),
        ({"attention_mask": [[1], [0, 1]]}, "attention_mask cannot be read"),
    ],
)
def test_wrong_columns_are_refused_with_what_and_where(change: dict[str, object], message: str) -> None:
    with pytest.raises(TrajectoryError, match=message):
        build(**change)
