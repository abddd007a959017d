"""The logits of scored steps, reduced as a recorder would have and held against what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from difftrace.core.evidence import Evidence
from difftrace.core.forced import ScoredLogits
from difftrace.core.noise import apart
from difftrace.sampling.reduction import reduce_logits
from difftrace.sampling.step import Step


@dataclass(frozen=True, eq=False)
class StepLogits:
    """What was made of the logits of some rows, [rows, ...] on the host; see `difftrace.core.evidence.Evidence`."""

    digests: npt.NDArray[np.int64]
    sketches: npt.NDArray[np.float32]
    sketched: npt.NDArray[np.int64]
    non_finite: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GoldenLogits:
    """What was recorded of the golden sequences' logits, and the root mean square that noise may be; None without."""

    evidences: Sequence[Evidence | None]
    tau: float | None

    def hold(self, logits: StepLogits, row: int, step: int, sequence: int) -> ScoredLogits:
        """Hold one row of `logits` against a sequence's golden step."""
        digest: Any = logits.digests[row]
        non_finite = int(logits.non_finite[row])
        golden = self.evidences[sequence]
        if golden is None:
            return ScoredLogits(tuple(digest.tolist()), non_finite, None, None, None, self.tau)
        same = bool((golden.logits_digests[step] == digest).all())
        epsilon = 0.0 if same else apart(golden, step, logits.sketches[row], int(logits.sketched[row]))
        golden_non_finite = int(golden.non_finite[step])
        return ScoredLogits(tuple(digest.tolist()), non_finite, golden_non_finite, same, epsilon, self.tau)


def step_logits(step: Step, first: Tensor) -> StepLogits:
    """Reduce the logits of the candidates of a step [B, W]; `first` [B] is where each row's first real token is."""
    found = reduce_logits(step, first, int(step.candidates.sum()))
    columns = (found.digests, found.sketches, found.sketched, found.non_finite)
    return StepLogits(*(column.cpu().numpy() for column in columns))
