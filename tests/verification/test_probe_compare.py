"""Two runs held against each other: bits, decisions, and the distance of logits as far as it means something."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difftrace.core.doctor import Demand
from difftrace.core.errors import ProbeError
from difftrace.core.trajectory import Trajectory
from difftrace.verification.probe_compare import compare_rows
from difftrace.verification.probe_run import RowRun

STEPS, LENGTH, VOCABULARY = 3, 4, 5
SOUND = torch.arange(STEPS * LENGTH * VOCABULARY, dtype=torch.float32).reshape(STEPS, LENGTH, VOCABULARY) / 8


def row(tokens: tuple[int, ...] = (6, 7, 8), logits: Tensor = SOUND, prompt: int = 1) -> RowRun:
    """Step s puts tokens[s] at position s + 1."""
    trajectory = Trajectory(
        prompt=[prompt],
        initial=[prompt, 9, 9, 9],
        steps=[0, 1, 2],
        positions=[1, 2, 3],
        tokens=list(tokens),
        num_steps=STEPS,
    )
    return RowRun(trajectory, logits)


def changed(step: int, value: float, position: int = 2, token: int = 1) -> Tensor:
    logits = SOUND.clone()
    logits[step, position, token] = value
    return logits


def test_equal_bits_are_bit_equal() -> None:
    result = compare_rows("repeat", "in process", [row(), row()], [row(), row(logits=SOUND.clone())])
    assert (result.verdict, result.difference, result.non_finite) == ("bit-equal", 0.0, 0)
    assert (result.probe, result.variant) == ("repeat", "in process")


def test_the_last_bit_of_one_logit_is_seen_and_measured() -> None:
    was = SOUND[2, 3, 4]
    other = changed(2, float(torch.nextafter(was, torch.tensor(math.inf))), position=3, token=4)
    result = compare_rows("repeat", "in process", [row()], [row(logits=other)])
    assert result.verdict == "same decisions"
    assert result.difference == float(other[2, 3, 4].double() - was.double()) > 0
    assert result.step is None


def test_zeros_of_different_sign_are_not_bit_equal() -> None:
    result = compare_rows("repeat", "in process", [row(logits=changed(0, 0.0))], [row(logits=changed(0, -0.0))])
    assert (result.verdict, result.difference) == ("same decisions", 0.0)


def test_bits_of_another_dtype_are_never_equal() -> None:
    result = compare_rows("dtype", "float64 instead of float32", [row()], [row(logits=SOUND.double())])
    assert (result.verdict, result.difference) == ("same decisions", 0.0)


def test_another_token_is_a_difference_at_its_step_and_position() -> None:
    result = compare_rows("batch", "2 rows instead of 1", [row()], [row(tokens=(6, 5, 8))])
    assert (result.verdict, result.step, result.position, result.prompt) == ("differs", 1, 2, 0)


def test_the_earliest_step_of_all_rows_is_named_with_its_prompt() -> None:
    base = [row(prompt=prompt) for prompt in range(3)]
    others = [row(prompt=0), row(tokens=(6, 7, 5), prompt=1), row(tokens=(6, 5, 8), prompt=2)]
    result = compare_rows("batch", "4 rows instead of 1", base, others)
    assert (result.verdict, result.step, result.position, result.prompt) == ("differs", 1, 2, 2)


def test_logits_are_measured_up_to_the_divergent_step_and_not_after_it() -> None:
    diverging, after = row((6, 5, 8), changed(1, 100.0)), row((6, 5, 8), changed(2, 100.0))
    was = float(SOUND[1, 2, 1])
    assert compare_rows("batch", "2", [row()], [diverging]).difference == 100.0 - was
    assert compare_rows("batch", "2", [row()], [after]).difference == 0.0


def test_the_difference_is_the_largest_of_all_rows() -> None:
    base = [row(), row()]
    result = compare_rows("batch", "2", base, [row(logits=changed(0, 50.0)), row(logits=changed(2, 90.0))])
    assert result.difference == 90.0 - float(SOUND[2, 2, 1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_counted_and_left_out_of_the_difference(value: float) -> None:
    result = compare_rows("repeat", "in process", [row()], [row(logits=changed(1, value))])
    assert (result.verdict, result.difference, result.non_finite) == ("same decisions", 0.0, 1)


def test_equal_nans_are_equal_bits_that_satisfy_nobody() -> None:
    broken = torch.full_like(SOUND, math.nan)
    result = compare_rows("repeat", "in process", [row(logits=broken)], [row(logits=broken.clone())])
    assert (result.verdict, result.difference, result.non_finite) == ("bit-equal", None, SOUND.numel())
    assert not Demand("repeat").met_by([result])


def test_differences_of_huge_logits_stay_finite() -> None:
    most = torch.finfo(torch.float32).max
    result = compare_rows("repeat", "in process", [row(logits=changed(0, most))], [row(logits=changed(0, -most))])
    assert result.difference == 2 * most


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_logits_are_compared_by_their_bits(dtype: torch.dtype) -> None:
    narrow, other = SOUND.to(dtype), changed(1, 64.0).to(dtype)
    assert (
        compare_rows("repeat", "in process", [row(logits=narrow)], [row(logits=narrow.clone())]).verdict == "bit-equal"
    )
    result = compare_rows("repeat", "in process", [row(logits=narrow)], [row(logits=other)])
    assert (result.verdict, result.difference) == ("same decisions", 64.0 - float(narrow[1, 2, 1]))


def test_runs_of_other_prompts_are_not_compared() -> None:
    with pytest.raises(ProbeError, match="prompt"):
        compare_rows("repeat", "in process", [row(prompt=1)], [row(prompt=2)])
