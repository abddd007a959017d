"""How far the evidence of two runs is apart while their canvases are equal.

Up to and including the first step that decides otherwise both runs saw the same canvas, so whatever differs there in
what they computed is a difference of the computation. Three quantities are compared, all in units of logits:

- scores: at a position committed by both, where both name the same two tokens as the best two, by how much their
  margin differs, halved. That is the smallest change of single scores that explains it. A shift common to all scores
  of a position changes no decision; margins do not contain it, which is why single scores are not compared.
- confidences: at a position that both know (committed, or listed as rejected) with the same token, the difference of
  the log-confidences, which are free of common shifts too.
- logits: for a step, the root mean square difference of all logits at its candidates, estimated from the sketches as
  sqrt(mean((sketch - sketch')**2) / sketched) (a Johnson-Lindenstrauss projection on random signs, Achlioptas 2003;
  32 projections estimate it to about 12 %). It contains common shifts, and needs no token to be the same. Where the
  digests are equal it is zero.

Values that are NaN or infinite in either run are not compared, nor scores and confidences of steps with other random
numbers, which they may contain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from difftrace.core.evidence import Evidence
from difftrace.core.recording import Budget
from difftrace.core.trajectory import Trajectory

Quantity = Literal["scores", "confidences", "logits"]

# Below e**-15 float16, the narrowest dtype that confidences are computed in, may have rounded one to 0.
_UNDERFLOW = -15.0
# A length is estimated from 32 squares with a standard deviation of an eighth: four of them.
_ESTIMATE: Final = 1.5
# As many values bound the noise they are drawn from well enough to say that something is none.
_ENOUGH = 16

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """The largest difference of one quantity.

    Attributes:
        quantity: what was compared.
        epsilon: the largest difference; of logits, the largest root mean square of a step.
        tau: what the budget allows; None without a budget.
        count: how many values (of logits: steps) were compared.
        step: where the largest is.
    """

    quantity: Quantity
    epsilon: float
    tau: float | None
    count: int
    step: int

    @property
    def exceeds(self) -> bool:
        """Whether it is more than the budget allows; False without one."""
        return self.tau is not None and self.epsilon > self.tau


@dataclass(frozen=True, eq=False)
class Compared:
    """Absolute differences of one quantity.

    Attributes:
        values: the differences, float64 [n], all finite.
        steps: the step of each, int64 [n].
        own: whether each belongs to a decision that differs, bool [n].
    """

    values: Array
    steps: Array
    own: Array

    def measured(self, quantity: Quantity, budget: Budget | None) -> Measured | None:
        """Return the largest difference, None if nothing was compared."""
        if not self.values.size:
            return None
        at = int(self.values.argmax())
        tau = None if budget is None else float(getattr(budget, quantity))
        return Measured(quantity, float(self.values[at]), tau, self.values.size, int(self.steps[at]))


@dataclass(frozen=True)
class Excess:
    """A log-confidence that differs by `epsilon`, although the logits of its step move none by more than `reach`."""

    step: int
    epsilon: float
    reach: float


@dataclass(frozen=True, eq=False)
class Differences:
    """All that was compared.

    Attributes:
        scores, confidences, logits: the quantities.
        reaches: by how much the logits of each step can have moved a log-confidence that is their softmax's, without
            guidance, float64 [S]; NaN where it is not known.
        barred: the first step where a confidence is 0 in one run only, or None.
    """

    scores: Compared
    confidences: Compared
    logits: Compared
    reaches: Array
    barred: int | None

    def measured(self, budget: Budget | None) -> tuple[Measured, ...]:
        """Return the largest difference of each quantity of which any value was compared."""
        found = (
            self.scores.measured("scores", budget),
            self.confidences.measured("confidences", budget),
            self.logits.measured("logits", budget),
        )
        return tuple(one for one in found if one is not None)

    def first_above(self, budget: Budget) -> int:
        """Return the first step at which some quantity exceeds `budget`; one must."""
        above = (
            compared.steps[compared.values > getattr(budget, quantity)]
            for quantity, compared in vars(self).items()
            if isinstance(compared, Compared)
        )
        return int(np.concatenate(list(above)).min())

    def excess(self, budget: Budget, amplification: float) -> Excess | None:
        """Return the log-confidence that leaves its budget furthest without the logits' doing, or None.

        `amplification` is what guidance may make of a difference of the model's logits. Nothing is concluded from steps
        whose logits cannot be compared.
        """
        reach = amplification * self.reaches[self.confidences.steps]
        values = self.confidences.values
        beyond = np.where((values > budget.confidences) & (values > reach), values - reach, -np.inf)
        if not (beyond > 0).any():
            return None
        at = int(beyond.argmax())
        return Excess(int(self.confidences.steps[at]), float(values[at]), float(reach[at]))

    def elsewhere(self, quantity: Literal["scores", "confidences"], factor: float) -> tuple[float, bool]:
        """Return how large the noise of a quantity is by other witnesses than the decisions that differ, and
        whether those are enough to call something larger no noise.

        The witnesses are the quantity's differences at every other decision, and `factor` times the root mean square
        of the logits; a factor of 0 says that logits are no witness of it.
        """
        compared: Compared = getattr(self, quantity)
        others = compared.values[~compared.own]
        by_logits = bool(factor and self.logits.values.size)
        epsilon = max(
            float(others.max(initial=0.0)), factor * float(self.logits.values.max(initial=0.0)) if by_logits else 0.0
        )
        return epsilon, by_logits or others.size >= _ENOUGH


def differences(golden: tuple[Trajectory, Evidence], observed: tuple[Trajectory, Evidence], steps: int) -> Differences:
    """Compare the first `steps` steps of two runs of one sequence, whose canvases before each of them are equal."""
    scores = _scores(golden, observed, steps)
    confidences, barred = _confidences(golden, observed, steps)
    lengths = _lengths(golden[1], observed[1], steps)
    logits = _logits(lengths, golden[1], steps)
    return Differences(scores, confidences, logits, _reaches(lengths, golden[1], observed[1]), barred)


def apart(golden: Evidence, step: int, sketch: Array, sketched: int) -> float | None:
    """Return by what root mean square the logits of a step, sketched anew, differ from the golden's.

    None where they are not as many, or there are none.
    """
    if sketched == 0 or sketched != golden.sketched[step]:
        return None
    with np.errstate(invalid="ignore"):
        difference = golden.sketches[step].astype(np.float64) - sketch
    rms = math.sqrt(np.square(difference).mean() / sketched)
    return rms if math.isfinite(rms) else None


def largest(measured: tuple[Measured, ...]) -> Measured | None:
    """Return the one that takes up most of its budget; the largest where there is none."""
    return max(measured, key=_share, default=None)


def _share(measured: Measured) -> float:
    if measured.tau is None:
        return measured.epsilon
    if measured.tau == 0.0:
        return math.inf if measured.epsilon else 0.0
    return measured.epsilon / measured.tau


def _keys(trajectory: Trajectory, steps: int) -> Array:
    """Return one number for step and position of each event before `steps`."""
    events = int(trajectory.steps.searchsorted(steps))
    return trajectory.steps[:events].astype(np.int64) * trajectory.length + trajectory.positions[:events]


def _scores(golden: tuple[Trajectory, Evidence], observed: tuple[Trajectory, Evidence], steps: int) -> Compared:
    (first, evidence), (second, others) = golden, observed
    keys, one, other = np.intersect1d(_keys(first, steps), _keys(second, steps), True, return_indices=True)
    best = evidence.top_tokens[one], others.top_tokens[other]
    next_best = evidence.runner_up_tokens[one], others.runner_up_tokens[other]
    same = (best[0] == best[1]) & (next_best[0] == next_best[1])
    swapped = (best[0] == next_best[1]) & (next_best[0] == best[1])
    with np.errstate(invalid="ignore"):
        margin, margin_there = (
            side.top_scores[index].astype(np.float64) - side.runner_up_scores[index]
            for side, index in ((evidence, one), (others, other))
        )
        values = np.abs(margin - np.where(swapped, -margin_there, margin_there)) / 2
    own = first.tokens[one] != second.tokens[other]
    at = keys // first.length
    return _finite(values, at, own, (same | swapped) & _same_noise(evidence, others)[at])


def _confidences(
    golden: tuple[Trajectory, Evidence], observed: tuple[Trajectory, Evidence], steps: int
) -> tuple[Compared, int | None]:
    (keys, tokens, values, committed), there = (_ranked(*side, steps) for side in (golden, observed))
    both, one, other = np.intersect1d(keys, there[0], assume_unique=True, return_indices=True)
    at = both // golden[0].length
    same = (tokens[one] == there[1][other]) & _same_noise(golden[1], observed[1])[at]
    own = committed[one] != there[3][other]
    before, after = values[one], there[2][other]
    with np.errstate(invalid="ignore"):
        compared = _finite(np.abs(before - after), at, own, same)
    barred = same & ((np.isneginf(before) & (after > _UNDERFLOW)) | (np.isneginf(after) & (before > _UNDERFLOW)))
    return compared, int(at[barred].min()) if barred.any() else None


def _ranked(trajectory: Trajectory, evidence: Evidence, steps: int) -> tuple[Array, Array, Array, Array]:
    """Return (key, token, log-confidence, committed) of every position whose confidence is known before `steps`."""
    keys = _keys(trajectory, steps)
    listed = evidence.rejected_positions[:steps] >= 0
    rejected = np.arange(len(listed), dtype=np.int64)[:, None] * trajectory.length + evidence.rejected_positions[:steps]
    return (
        np.concatenate((keys, rejected[listed])),
        np.concatenate((trajectory.tokens[: keys.size], evidence.rejected_tokens[:steps][listed])),
        np.concatenate((evidence.confidences[: keys.size], evidence.rejected_confidences[:steps][listed])).astype(
            np.float64
        ),
        np.arange(keys.size + np.count_nonzero(listed)) < keys.size,
    )


def _logits(lengths: Array, golden: Evidence, steps: int) -> Compared:
    values = lengths / np.sqrt(np.maximum(golden.sketched[:steps], 1))
    return _finite(values, np.arange(steps), np.zeros(steps, dtype=bool), np.ones(steps, dtype=bool))


def _lengths(golden: Evidence, observed: Evidence, steps: int) -> Array:
    known = (golden.sketched[:steps] == observed.sketched[:steps]) & (golden.sketched[:steps] > 0)
    with np.errstate(invalid="ignore"):
        difference = golden.sketches[:steps].astype(np.float64) - observed.sketches[:steps]
        lengths: Array = np.sqrt(np.square(difference).mean(axis=1))
    lengths[~known] = np.nan
    lengths[equal_logits(golden, observed, steps)] = 0.0
    return lengths


def _reaches(lengths: Array, golden: Evidence, observed: Evidence) -> Array:
    """Return by how much logits that are apart by vectors of these lengths can move a log-softmax.

    Its gradient is a one-hot vector minus probabilities, which is no longer than sqrt(2): so by sqrt(2) times the
    length, wherever they differ. The length is estimated, from sketches of float32, whose rounding hides small ones.
    """
    steps = len(lengths)
    highest = np.maximum(np.abs(golden.sketches[:steps]), np.abs(observed.sketches[:steps])).max(axis=1)
    hidden = np.where(equal_logits(golden, observed, steps), 0.0, np.finfo(np.float32).eps * highest)
    reaches: Array = math.sqrt(2) * (_ESTIMATE * lengths + hidden)
    return reaches


def equal_logits(golden: Evidence, observed: Evidence, steps: int) -> npt.NDArray[np.bool_]:
    """Say for each of the first `steps` steps whether the logits are equal in every bit, by their digests."""
    equal: npt.NDArray[np.bool_] = (golden.logits_digests[:steps] == observed.logits_digests[:steps]).all(axis=1)
    return equal


def _same_noise(golden: Evidence, observed: Evidence) -> npt.NDArray[np.bool_]:
    """Say for each step of both whether its random numbers, which scores and confidences may hold, are the same."""
    steps = min(golden.num_steps, observed.num_steps)
    same: npt.NDArray[np.bool_] = golden.noise_digests[:steps] == observed.noise_digests[:steps]
    return same


def _finite(values: Array, steps: Array, own: Array, comparable: Array) -> Compared:
    kept = comparable & np.isfinite(values)
    return Compared(values[kept], steps[kept], own[kept])
