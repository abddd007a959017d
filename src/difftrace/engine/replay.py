"""A stored request, reconstructed from its events and compared with the output that was stored beside them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from difftrace.core.text import printable
from difftrace.core.trajectory import Ints, Trajectory
from difftrace.store import Record


@dataclass(frozen=True)
class Mismatch:
    """One position at which the events do not lead to the stored output.

    Attributes:
        position: of the canvas.
        step: the last step that committed it; None if none did.
        replayed: the token that the events lead to.
        stored: the token of the stored output.
    """

    position: int
    step: int | None
    replayed: int
    stored: int


@dataclass(frozen=True, eq=False, repr=False)
class ReplayResult:
    """What replaying a request came to. No model runs: it says whether events and output agree, not whether a model
    would decide so again.

    Attributes:
        request_id: as asked for.
        tokens: the final canvas as the events lead to it, shape [L]; None where the record is damaged.
        generated_tokens: the same without the prompt; None likewise.
        generated_text: as it was stored, empty where it was not.
        compared: positions at which a stored output was compared with `tokens`.
        mismatches: those at which they differ, ascending.
        reason: why `exact_match` is False; None where it is True.
        replay_time_ms: milliseconds for reconstructing and comparing, reading from the store not included.
    """

    request_id: str
    tokens: Ints | None
    generated_tokens: Ints | None
    generated_text: str
    compared: int
    mismatches: tuple[Mismatch, ...]
    reason: str | None
    replay_time_ms: float

    @property
    def exact_match(self) -> bool:
        """Whether a stored output was compared with the reconstruction and every token is the same."""
        return self.reason is None

    @property
    def success(self) -> bool:
        """Whether there is a reconstruction."""
        return self.tokens is not None

    @property
    def token_match_rate(self) -> float:
        """Share of the compared positions that are the same; 0.0 where none was compared."""
        return 1 - len(self.mismatches) / self.compared if self.compared else 0.0

    @property
    def mismatched_positions(self) -> list[int]:
        """Canvas positions of the mismatches."""
        return [mismatch.position for mismatch in self.mismatches]

    def __repr__(self) -> str:
        return f"<ReplayResult of '{printable(self.request_id)}': {self.reason or 'exact match'}>"


def replay_record(record: Record) -> ReplayResult:
    """Reconstruct the final canvas of `record` from its events and compare it with its output.

    The output may be the whole canvas or what follows the prompt.
    """
    start = time.perf_counter_ns()
    trajectory, output = record.trajectory, record.output
    final = trajectory.final
    prompt_end = trajectory.padding + trajectory.prompt.size if trajectory.prompt_in_canvas else 0
    compared = 0
    mismatches: tuple[Mismatch, ...] = ()
    reason = None
    if output is None:
        reason = "no output was stored with it, so that there is nothing to compare with"
    elif output.size not in (final.size, final.size - prompt_end):
        reason = (
            f"the stored output has {output.size} tokens; neither the canvas ({final.size}) nor what follows the prompt"
            f" ({final.size - prompt_end}) has as many"
        )
    else:
        compared = output.size
        mismatches = _mismatches(trajectory, final, output)
        if mismatches:
            reason = _described(mismatches)
    elapsed = (time.perf_counter_ns() - start) / 1e6
    text = record.metadata.get("generated_text")
    return ReplayResult(
        request_id=record.request_id,
        tokens=final,
        generated_tokens=final[prompt_end:],
        generated_text=text if isinstance(text, str) else "",
        compared=compared,
        mismatches=mismatches,
        reason=reason,
        replay_time_ms=elapsed,
    )


def damaged_result(request_id: str, reason: str) -> ReplayResult:
    """Return the result for a record that is damaged, of which nothing can be trusted."""
    return ReplayResult(request_id, None, None, "", 0, (), reason, 0.0)


def _mismatches(trajectory: Trajectory, final: Ints, output: Ints) -> tuple[Mismatch, ...]:
    offset = final.size - output.size
    found = []
    for position in (np.flatnonzero(final[offset:] != output) + offset).tolist():
        steps = trajectory.steps[trajectory.positions == position]
        step = int(steps[-1]) if steps.size else None
        found.append(Mismatch(position, step, int(final[position]), int(output[position - offset])))
    return tuple(found)


def _described(mismatches: tuple[Mismatch, ...]) -> str:
    first = mismatches[0]
    how = "no step committed" if first.step is None else f"step {first.step} committed {first.replayed} to"
    others = f", and {len(mismatches) - 1} more" if len(mismatches) > 1 else ""
    return (
        f"the events do not lead to the stored output: {how} position {first.position}, where {first.stored} is"
        f" stored{others}"
    )
