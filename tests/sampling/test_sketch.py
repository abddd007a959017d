"""Sketches estimate how far two runs' logits are apart, and are exact sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from difftrace.core.evidence import PROJECTIONS
from difftrace.sampling.evidence import EvidenceRecorder
from difftrace.sampling.sketch import as_logits, by_integers, by_product, project
from difftrace.sampling.step import Step

LENGTH, VOCABULARY = 24, 5000


def _logits() -> Tensor:
    """Logits as large and as far from zero mean as a model's."""
    return torch.randn((1, LENGTH, VOCABULARY), generator=torch.Generator().manual_seed(0)) * 3 - 4


def _sketch(logits: Tensor) -> np.ndarray:
    everything = torch.ones(1, LENGTH, dtype=torch.bool)
    recorder = EvidenceRecorder(torch.zeros(1, dtype=torch.long))
    recorder.add(Step(logits, logits, everything, everything, logits.argmax(-1), everything.float()))
    (evidence,) = recorder.finish()
    assert evidence.sketched.tolist() == [LENGTH * VOCABULARY]
    return evidence.sketches[0].astype(np.float64)


def _spread(size: float) -> Tensor:
    return size * torch.randn((1, LENGTH, VOCABULARY), generator=torch.Generator().manual_seed(1))


def _single(size: float) -> Tensor:
    return torch.zeros(1, LENGTH, VOCABULARY).index_put_(tuple(torch.tensor([0, 7, 123]).split(1)), torch.tensor(size))


def _one_position(size: float) -> Tensor:
    return _spread(size) * (torch.arange(LENGTH) == 5).view(1, -1, 1)


def _one_token(size: float) -> Tensor:
    return _spread(size) * (torch.arange(VOCABULARY) == 77)


def _constant(size: float) -> Tensor:
    return torch.full((1, LENGTH, VOCABULARY), size)


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("change", [_spread, _single, _one_position, _one_token, _constant])
def test_the_difference_of_two_sketches_estimates_the_distance_of_the_logits(change: object, size: float) -> None:
    logits = _logits()
    changed = logits + change(size)  # type: ignore[operator]
    estimate = np.sqrt(((_sketch(changed) - _sketch(logits)) ** 2).mean())
    truth = (changed.double() - logits.double()).square().sum().sqrt().item()
    # Three standard deviations of the worst case; the signs are fixed, so this cannot fail by chance.
    assert 0.5 < estimate / truth < 1.75


def test_two_runs_with_equal_logits_have_equal_sketches() -> None:
    assert (_sketch(_logits()) == _sketch(_logits().clone())).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_exact_in_every_precision_however_they_are_made(dtype: torch.dtype) -> None:
    rows = _logits()[0, :3].to(dtype)
    rows[0, 0], rows[1, 1], rows[2, 2] = torch.nan, torch.inf, -torch.inf
    fixed = (rows.double() * 2**20).nan_to_num(0.0, 0.0, 0.0).round()
    sums = project(rows)
    assert sums.dtype == torch.int64
    assert sums.shape == (3, PROJECTIONS)
    assert torch.equal(sums, by_product(fixed))
    assert torch.equal(sums, by_integers(fixed.float() if dtype != torch.float64 else fixed))
    assert torch.equal(sums, torch.cat([project(row[None]) for row in rows]))


def test_absurd_logits_count_up_to_a_bound() -> None:
    rows = torch.tensor([[1e30, -1e30, 3.0]])
    bounded = torch.tensor([[2.0**14, -(2.0**14), 3.0]])
    assert torch.equal(project(rows), project(bounded))


def test_units_are_those_of_the_logits() -> None:
    assert as_logits(torch.tensor([2**20, -(2**19), 0])).tolist() == [1.0, -0.5, 0.0]
