"""Why each decision of a run was made: what was chosen among what, by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

REJECTED: Final = 4
DIGEST_LANES: Final = 2
PROJECTIONS: Final = 32


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """The evidence of one trajectory with E events and T steps.

    A *candidate* of a step is a position that could have been committed at it. A token's *score* is the value whose
    largest wins: the logit after guidance, with what forbids tokens and with the noise, as a logarithm. A
    position's *confidence* is what its rank among the candidates is decided by, kept as a logarithm, -inf for 0.

    Attributes:
        top_tokens: token of highest score at the position of each event, shape [E], in the trajectory's order.
        top_scores: its score, float32 [E].
        runner_up_tokens: token of second highest score, shape [E].
        runner_up_scores: its score, float32 [E].
        confidences: log-confidence of each event's position at its step, float32 [E].
        candidates: number of candidates of each step, shape [T].
        rejected_positions: the candidates with the highest confidence among those not committed, best first,
            shape [T, REJECTED]; -1 where there are fewer.
        rejected_tokens: the token each would have taken, shape [T, REJECTED]; -1 where there are fewer.
        rejected_confidences: their log-confidences, float32 [T, REJECTED]; NaN where there are fewer.
        ties: number of rejected candidates of exactly the confidence of the worst committed one, shape [T].
        non_finite: number of logits at candidates that the model returned as NaN or infinite, shape [T].
        logits_digests: digest of the model's logits at the candidates, in its own dtype, int64 [T, DIGEST_LANES].
            Equal where every bit is; means something within one environment.
        sketches: the same logits projected on fixed random signs, float32 [T, PROJECTIONS]. The mean square of the
            difference of two sketches estimates the sum of squared differences of the logits.
        sketched: how many logits each sketch is a projection of, int64 [T].
        noise_digests: digest of the random numbers of each step, int64 [T]; 0 where there were none.
    """

    top_tokens: Ints
    top_scores: Floats
    runner_up_tokens: Ints
    runner_up_scores: Floats
    confidences: Floats
    candidates: Ints
    rejected_positions: Ints
    rejected_tokens: Ints
    rejected_confidences: Floats
    ties: Ints
    non_finite: Ints
    logits_digests: Wide
    sketches: Floats
    sketched: Wide
    noise_digests: Wide
