"""A capture keeps what each step committed, as it was at that moment, and says what contradicts itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from difftrace.core.captured import PLACEHOLDER
from difftrace.core.engine_config import CaptureConfig, CaptureGranularity
from difftrace.core.errors import EngineError, TrajectoryError
from difftrace.core.kept_arrays import joined_on_host, keep
from difftrace.core.trajectory import TrajectoryCapture


@pytest.fixture
def capture() -> TrajectoryCapture:
    made = TrajectoryCapture(CaptureConfig())
    made.begin_trajectory("a", [1, 2], num_diffusion_steps=4, sequence_length=6)
    return made


def test_events_are_what_was_captured(capture) -> None:
    capture.capture_step(0, [3, 2], [13, 12])
    capture.capture_step(2, (5,), (15,))
    ended = capture.end_trajectory(generated_tokens=[1, 2, 12, 13, 0, 15])
    trajectory = ended.trajectory
    assert (trajectory.num_steps, ended.num_steps_captured) == (4, 2)
    assert trajectory.steps.tolist() == [0, 0, 2]
    assert trajectory.positions.tolist() == [2, 3, 5]
    assert trajectory.tokens.tolist() == [12, 13, 15]
    assert trajectory.initial.tolist() == [1, 2, *[PLACEHOLDER] * 4]
    assert ended.generated_tokens.tolist() == [1, 2, 12, 13, 0, 15]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arrays_that_the_loop_writes_over_are_kept_as_they_were(capture, kind) -> None:
    if kind == "torch":
        torch = pytest.importorskip("torch")
        positions, tokens = torch.tensor([2]), torch.tensor([12])
        mask = torch.tensor([False, False, False, True, True, True])
    else:
        positions, tokens = np.array([2]), np.array([12])
        mask = np.array([False, False, False, True, True, True])
    for step in range(3):
        capture.capture_step(step, positions, tokens, mask)
        positions += 1
        tokens += 1
        mask[3 + step] = False
    trajectory = capture.end_trajectory().trajectory
    assert trajectory.positions.tolist() == [2, 3, 4]
    assert trajectory.tokens.tolist() == [12, 13, 14]


class OnDevice:
    """A tensor of a device that is slow to answer: `cpu` is counted, and nothing else reveals values."""

    crossings = 0

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)
        self.shape, self.dtype, self.device = self._values.shape, self._values.dtype, "far"

    def detach(self) -> OnDevice:
        return self

    def clone(self) -> OnDevice:
        return OnDevice(self._values.copy())

    def new_empty(self, size: int) -> OnDevice:
        return OnDevice(np.empty(size, dtype=self.dtype))

    def __setitem__(self, key: slice, value: OnDevice) -> None:
        self._values[key] = value._values

    def cpu(self) -> np.ndarray:
        OnDevice.crossings += 1
        return self._values


def test_the_loop_waits_for_no_device_and_the_end_once_for_each_column(capture, monkeypatch) -> None:
    monkeypatch.setattr(OnDevice, "crossings", 0)
    for step in range(4):
        masked = np.arange(6) > step + 2
        capture.capture_step(step, OnDevice([step + 2]), OnDevice([step]), OnDevice(masked))
    assert OnDevice.crossings == 0
    trajectory = capture.end_trajectory(OnDevice([1, 2, 0, 1, 2, 3])).trajectory
    assert OnDevice.crossings == 4
    assert trajectory.tokens.tolist() == [0, 1, 2, 3]


def test_tensors_of_several_kinds_are_joined() -> None:
    torch = pytest.importorskip("torch")
    parts = [torch.tensor([1, 2], dtype=torch.int32), torch.tensor([]), torch.tensor([1 << 40])]
    assert joined_on_host([keep("part", part) for part in parts]).tolist() == [1, 2, 1 << 40]
    assert joined_on_host([]).tolist() == []


def test_one_row_of_a_batch_is_a_sequence_and_two_are_an_error(capture) -> None:
    capture.capture_step(0, np.array([[2, 3]]), np.array([[12, 13]]))
    with pytest.raises(EngineError, match=r"unmasked_positions of step 1 .* not the shape \[2, 1\]"):
        capture.capture_step(1, np.array([[4], [5]]), np.array([[14], [15]]))


@pytest.mark.parametrize("step", [0, 1])
def test_steps_out_of_order_are_an_error(capture, step) -> None:
    capture.capture_step(1, [2], [12])
    with pytest.raises(EngineError, match=f"step {step} comes after step 1"):
        capture.capture_step(step, [3], [13])


def test_a_step_beyond_those_announced_is_an_error(capture) -> None:
    with pytest.raises(EngineError, match="step 4 is none of the 4 steps announced"):
        capture.capture_step(4, [2], [12])


def test_columns_of_different_length_are_an_error_at_once(capture) -> None:
    with pytest.raises(EngineError, match="step 0 has 2 unmasked_positions and 1 sampled_tokens"):
        capture.capture_step(0, [2, 3], [12])


@pytest.mark.parametrize(
    ("positions", "tokens", "error", "message"),
    [
        ([1], [12], EngineError, "step 0 commits position 1, which is in the prompt of 2 tokens"),
        ([6], [12], TrajectoryError, r"positions\[0\] is 6"),
        ([2], [-1], TrajectoryError, r"tokens\[0\] is -1"),
        ([2], [1.5], TrajectoryError, "tokens must hold integers"),
        ([2, 2], [1, 2], TrajectoryError, "position 2 is committed twice at step 0"),
    ],
)
def test_values_that_make_no_sense_are_named_at_the_end_and_the_next_capture_works(
    capture, positions, tokens, error, message
) -> None:
    capture.capture_step(0, positions, tokens)
    with pytest.raises(error, match=message):
        capture.end_trajectory()
    capture.begin_trajectory("b", [1], sequence_length=2)
    capture.capture_step(0, [1], [5])
    assert capture.end_trajectory().trajectory.final.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([0, 0, 1, 1, 1, 1], "step 1 says that position 2 is masked, but step 0 committed it"),
        ([0, 0, 0, 0, 1, 0], "step 1 says that position 5 is no longer masked, but no captured step committed it"),
        ([1, 0, 0, 0, 1, 1], "step 1 says that position 0 of the prompt is masked"),
        ([0, 0, 0, 2, 1, 1], "mask_state of step 1 must hold truth values"),
    ],
)
def test_a_mask_that_contradicts_the_events_is_named(capture, mask, message) -> None:
    capture.capture_step(0, [2], [12], [False, False, False, True, True, True])
    capture.capture_step(1, [3], [13], mask)
    with pytest.raises(EngineError, match=message):
        capture.end_trajectory()


def test_a_mask_may_leave_the_prompt_out(capture) -> None:
    capture.capture_step(0, [2], [12], [False, True, True, True])
    assert capture.end_trajectory().trajectory.num_events == 1


def test_a_position_masked_again_is_a_commit_of_the_masks_token() -> None:
    capture = TrajectoryCapture(CaptureConfig())
    capture.begin_trajectory("a", [1], sequence_length=3, mask_token_id=99)
    capture.capture_step(0, [1], [11], [False, False, True])
    capture.capture_step(1, [1, 2], [99, 12], [False, True, False])
    assert capture.end_trajectory().trajectory.final.tolist() == [1, 99, 12]


def test_tokens_only_looks_at_no_mask() -> None:
    capture = TrajectoryCapture(CaptureConfig(granularity=CaptureGranularity.TOKENS_ONLY))
    capture.begin_trajectory("a", [1], sequence_length=3)
    capture.capture_step(0, [1], [11], mask_state="nothing of the kind")
    assert capture.end_trajectory().trajectory.num_events == 1


def test_a_mask_or_output_of_another_length_is_an_error(capture) -> None:
    with pytest.raises(EngineError, match="mask_state of step 0 has 5 entries; it must have 6"):
        capture.capture_step(0, [2], [12], [False] * 5)
    with pytest.raises(EngineError, match=r"generated_tokens has 3 entries; it must have 6.* or 4"):
        capture.end_trajectory(generated_tokens=[1, 2, 3])


def test_calls_outside_a_trajectory_are_errors(capture) -> None:
    capture.end_trajectory()
    with pytest.raises(EngineError, match=r"capture_step\(\) was called outside a trajectory"):
        capture.capture_step(0, [2], [12])
    with pytest.raises(EngineError, match=r"end_trajectory\(\) was called outside a trajectory"):
        capture.end_trajectory()


def test_a_second_trajectory_begins_only_after_the_first_has_ended_or_was_discarded(capture) -> None:
    with pytest.raises(EngineError, match="'a' is still being captured"):
        capture.begin_trajectory("b", [1], sequence_length=2)
    capture.discard()
    assert capture.begin_trajectory("b", [1], sequence_length=2).request_id == "b"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "sequence_length is 0 for a prompt of 2 tokens"),
        ({"sequence_length": 2}, "sequence_length is 2 for a prompt of 2"),
        ({"sequence_length": 4.0}, "sequence_length must be an integer, not float"),
        ({"sequence_length": 4, "num_diffusion_steps": -1}, "num_diffusion_steps is -1"),
        ({"sequence_length": 4, "num_diffusion_steps": True}, "num_diffusion_steps must be an integer, not bool"),
        ({"sequence_length": 200_000_000}, "sequence_length is 200000000; it must be at most 1048576"),
        ({"sequence_length": 4, "num_diffusion_steps": 10**12}, "it must be at most 1048576"),
        ({"sequence_length": 4, "mask_token_id": 1 << 40}, "mask_token_id is 1099511627776; it must be at most"),
        ({"sequence_length": 4, "model_config": [1]}, "model_config must be a mapping, not list"),
        ({"sequence_length": 4, "temperature": float("nan")}, "temperature is nan; it must be a finite number"),
        ({"sequence_length": 4, "top_p": float("inf")}, "top_p is inf; it must be a finite number"),
    ],
)
def test_a_beginning_that_makes_no_sense_is_an_error(given, message) -> None:
    with pytest.raises(EngineError, match=message):
        TrajectoryCapture(CaptureConfig()).begin_trajectory("a", [1, 2], **given)


def test_a_step_beyond_every_limit_is_an_error_where_none_were_announced() -> None:
    capture = TrajectoryCapture(CaptureConfig())
    capture.begin_trajectory("a", [], sequence_length=3)
    with pytest.raises(EngineError, match="step_index is 1048576; it must be at most 1048575"):
        capture.capture_step(1 << 20, [0], [11])


def test_what_json_cannot_hold_of_a_model_is_kept_as_text() -> None:
    about = {"scale": float("nan"), "seed": 1 << 70, "small": 1 << 62, "rate": 0.5}
    record = TrajectoryCapture(CaptureConfig()).begin_trajectory("a", [], sequence_length=3, model_config=about)
    assert {key.partition(".")[2]: value for key, value in record.metadata.items()} == {
        "scale": "nan",
        "seed": str(1 << 70),
        "small": 1 << 62,
        "rate": 0.5,
    }


def test_without_a_number_of_steps_the_last_captured_is_the_last() -> None:
    capture = TrajectoryCapture(CaptureConfig())
    capture.begin_trajectory("a", [], sequence_length=3)
    capture.capture_step(6, [0], [11])
    assert capture.end_trajectory().trajectory.num_steps == 7


def test_capturing_needs_no_torch() -> None:
    program = (
        "import sys; from difftrace.core.trajectory import TrajectoryCapture, TrajectoryRecord; import difftrace.engine"
        "; import difftrace.utils.config; print(sorted({'torch', 'transformers', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
