"""Two runs of the same rows, held against each other: decisions, then the bits and the distance of their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from difftrace.core.comparison import Divergence, compare
from difftrace.core.doctor import VERDICTS, Probe, ProbeResult, Verdict
from difftrace.core.errors import ProbeError
from difftrace.verification.probe_run import RowRun

# Integers as wide as the floats, to compare bits: as floats NaN differs from itself, and 0.0 equals -0.0.
_AS_INTEGERS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Row:
    """What one row showed; `difference` is None where no pair of logits was finite."""

    verdict: Verdict
    divergence: Divergence | None
    difference: float | None
    non_finite: int


def compare_rows(probe: Probe, variant: str, base: Sequence[RowRun], other: Sequence[RowRun]) -> ProbeResult:
    """Return what `variant` changed: the worst verdict of its rows, and where the first of them parted.

    Raises ProbeError where the two did not run the same prompts.
    """
    rows = [_compare_row(one, two) for one, two in zip(base, other, strict=True)]
    verdict = max((row.verdict for row in rows), key=VERDICTS.index)
    # The steps of rows that run one after the other still count alike: the earliest step is the one to look at.
    parted = [(row.divergence, index) for index, row in enumerate(rows) if row.divergence is not None]
    first, prompt = min(parted, key=lambda pair: pair[0].step or 0, default=(None, None))
    differences = [row.difference for row in rows if row.difference is not None]
    return ProbeResult(
        probe,
        variant,
        verdict,
        step=None if first is None else first.step,
        position=None if first is None else first.position,
        prompt=prompt,
        difference=max(differences, default=None),
        non_finite=sum(row.non_finite for row in rows),
    )


def _compare_row(base: RowRun, other: RowRun) -> _Row:
    divergence = compare(base.trajectory, other.trajectory)
    if divergence is not None and divergence.kind != "decision":
        raise ProbeError(f"two runs that were to be alike differ in their {divergence.kind}")
    # The divergent step itself still saw equal canvases on both sides; the ones after it did not.
    last = base.trajectory.num_steps - 1 if divergence is None else divergence.step
    assert last is not None
    alike, largest, non_finite = True, None, 0
    for one, two in zip(base.logits[: last + 1], other.logits[: last + 1], strict=True):
        alike &= _same_bits(one, two)
        difference, broken = _distance(one, two)
        non_finite += broken
        if difference is not None:
            largest = max(difference, 0.0 if largest is None else largest)
    verdict: Verdict = "differs" if divergence is not None else "bit-equal" if alike else "same decisions"
    return _Row(verdict, divergence, largest, non_finite)


def _same_bits(one: Tensor, two: Tensor) -> bool:
    if one.dtype != two.dtype:
        return False
    integers = _AS_INTEGERS[one.element_size()]
    return torch.equal(one.contiguous().view(integers), two.contiguous().view(integers))


def _distance(one: Tensor, two: Tensor) -> tuple[float | None, int]:
    """Return the largest difference over the finite pairs (None if there are none), and the number of others."""
    finite = torch.isfinite(one) & torch.isfinite(two)
    count = int(finite.sum())
    if count == 0:
        return None, finite.numel()
    # In fp64 no difference of two finite logits overflows, or rounds to zero.
    apart = (one.double() - two.double()).abs()
    return float(torch.where(finite, apart, 0.0).max()), finite.numel() - count
