"""Why each decision of a run was made: what was chosen among what, by how much."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core import evidence_codec
from difftrace.core.errors import FormatError, TrajectoryError
from difftrace.core.evidence_columns import DIGEST_LANES, LAYOUT, PROJECTIONS, REJECTED, checked, numbers, rows
from difftrace.core.limits import MAX_EVIDENCE_NUMBERS

if TYPE_CHECKING:
    from difftrace.core.trajectory import Trajectory

__all__ = ["DIGEST_LANES", "PROJECTIONS", "REJECTED", "Evidence", "clearly_above"]

Ints = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_DIGEST_HEADER: Final = b"difftrace-evidence-1\n"

# Logarithms of values in descending order may leave it by the last bits: a device's logarithm need not be monotonic.
_ROUNDING: Final = 2.0**-21


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """The evidence of one trajectory with E events and T steps.

    A *candidate* of a step is a position that could have been committed at it. A token's *score* is the value whose
    largest wins: the logit after guidance, with what forbids tokens and with the noise, as a logarithm. A
    position's *confidence* is what its rank among the candidates is decided by, kept as a logarithm, -inf for 0.
    Scores and confidences are NaN where the sampler's were, or where they are not known; then nothing is concluded
    from them.

    Arrays may be anything numpy reads as integers or floating-point numbers; they are kept as read-only copies.

    Attributes:
        top_tokens: token of highest score at the position of each event, shape [E], in the trajectory's order.
        top_scores: its score, float32 [E].
        runner_up_tokens: token of second highest score, shape [E].
        runner_up_scores: its score, float32 [E]; no higher than the highest.
        confidences: log-confidence of each event's position at its step, float32 [E]; below +inf.
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

    Raises:
        TrajectoryError: a column leaves its range or contradicts another.
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

    def __post_init__(self) -> None:
        events, steps = rows("top_tokens", self.top_tokens), rows("candidates", self.candidates)
        if numbers(events, steps) > MAX_EVIDENCE_NUMBERS:
            raise TrajectoryError(
                f"the evidence of {events} events and {steps} steps holds {numbers(events, steps)} numbers, "
                f"more than the limit of {MAX_EVIDENCE_NUMBERS}"
            )
        self.__dict__.update(
            {column.name: checked(column, getattr(self, column.name), events, steps) for column in LAYOUT}
        )
        self._check_rejected()
        for name in ("confidences", "rejected_confidences"):
            _refuse(np.isposinf(getattr(self, name)), f"{name} holds +inf, which is no logarithm of a confidence")
        _refuse(
            clearly_above(self.runner_up_scores, self.top_scores),
            "event {} has a runner-up of a higher score than its top token",
        )
        _refuse(self.ties > self.candidates, "step {} has more ties than candidates")

    def _check_rejected(self) -> None:
        filled = self.rejected_positions >= 0
        _refuse(filled != (self.rejected_tokens >= 0), "step {} lists a rejected position without a token")
        _refuse(
            ~filled & ~np.isnan(self.rejected_confidences),
            "step {} has a confidence where it lists no rejected candidate; it must be NaN there",
        )
        _refuse(filled[:, 1:] & ~filled[:, :-1], "step {} leaves a gap among its rejected candidates")
        _refuse(self.listed > self.candidates, "step {} lists more rejected candidates than it has candidates")
        _refuse(
            clearly_above(self.rejected_confidences[:, 1:], self.rejected_confidences[:, :-1]),
            "step {} does not list its rejected candidates best first",
        )
        positions = np.sort(self.rejected_positions, axis=1)
        _refuse(
            (positions[:, 1:] == positions[:, :-1]) & (positions[:, 1:] >= 0),
            "step {} lists a rejected candidate twice",
        )

    @property
    def num_events(self) -> int:
        """E, the events this is evidence of."""
        return self.top_tokens.size

    @property
    def num_steps(self) -> int:
        """T, the steps this is evidence of."""
        return self.candidates.size

    @property
    def listed(self) -> Ints:
        """How many rejected candidates each step lists, shape [T]."""
        listed: Ints = (self.rejected_positions >= 0).sum(axis=1, dtype=np.int32)
        return listed

    def check_fit(self, trajectory: Trajectory) -> None:
        """Check that this can be the evidence of `trajectory`.

        Raises:
            TrajectoryError: its events, steps or positions are others, or it lists as rejected what was committed.
        """
        for name, size in (("events", trajectory.num_events), ("steps", trajectory.num_steps)):
            if (own := getattr(self, f"num_{name}")) != size:
                raise TrajectoryError(f"the evidence is of {own} {name}, but the trajectory has {size}")
        length = trajectory.length
        _refuse(self.rejected_positions >= length, f"step {{}} rejects a position outside the canvas of {length}")
        _refuse(self.candidates > length, f"step {{}} has more candidates than the {length} positions of the canvas")
        committed = np.bincount(trajectory.steps, minlength=self.num_steps)
        _refuse(
            self.listed < np.minimum(REJECTED, self.candidates - committed),
            f"step {{}} lists fewer rejected candidates than there are; it must list the best {REJECTED}",
        )
        if trajectory.num_events == 0:
            return
        # Events stand in the order of their keys.
        keys = trajectory.steps.astype(np.int64) * length + trajectory.positions
        rejected = np.arange(self.num_steps, dtype=np.int64)[:, None] * length + self.rejected_positions
        nearest = keys[np.minimum(keys.searchsorted(rejected), keys.size - 1)]
        _refuse(
            (nearest == rejected) & (self.rejected_positions >= 0),
            "step {} lists a position as rejected that it commits",
        )

    @cached_property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over the content, whatever encoding it was read from.

        Hashed are `difftrace-evidence-1` and a line feed, E and T in 8 bytes each, then the columns in the order of
        the attributes, row by row, in 4 bytes a number and 8 for `logits_digests`, `sketched` and `noise_digests`;
        little-endian, every NaN as 0x7fc00000 and no negative zero.
        """
        digest = hashlib.sha256(_DIGEST_HEADER)
        digest.update(np.array([self.num_events, self.num_steps], dtype="<i8").tobytes())
        for column in LAYOUT:
            digest.update(getattr(self, column.name).tobytes())
        return f"sha256:{digest.hexdigest()}"

    def to_bytes(self) -> bytes:
        """Return the compact encoding that `difftrace.core.evidence_codec` describes."""
        return evidence_codec.encode({column.name: getattr(self, column.name) for column in LAYOUT})

    @classmethod
    def from_bytes(cls, data: bytes) -> Evidence:
        """Decode what `to_bytes` returned.

        Raises:
            FormatError: `data` is anything else.
        """
        if not isinstance(data, bytes):
            raise FormatError(f"encoded evidence is bytes, not {type(data).__name__}")
        try:
            return cls(**evidence_codec.decode(data))
        except TrajectoryError as error:
            raise FormatError(str(error)) from None

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Evidence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Evidence: {self.num_steps} steps, {self.num_events} events, {self.digest[:15]}>"


def clearly_above(one: Any, other: Any) -> npt.NDArray[np.bool_]:
    """Say where `one` exceeds `other` by more than the rounding of a logarithm; nowhere where either is NaN."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    above: npt.NDArray[np.bool_] = one > other + np.where(np.isfinite(other), np.abs(other) * _ROUNDING, 0.0)
    return above


def _refuse(wrong: npt.NDArray[np.bool_], message: str) -> None:
    """Raise for the first row (event or step) of `wrong` in which any is true."""
    if wrong.any():
        raise TrajectoryError(message.format(int(np.argwhere(wrong)[0, 0])))
