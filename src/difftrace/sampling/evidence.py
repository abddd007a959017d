"""The evidence of a run: its steps are reduced on the device, many at a time, and read back at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.core.evidence import Evidence
from difftrace.sampling.arrival import SENDING, Arrival, send
from difftrace.sampling.reduction import EventColumns, StepColumns, reduce_steps
from difftrace.sampling.step import Step

# Bytes of logits and noise that wait for being reduced together: enough for a small model's whole run.
_HOLD_CPU: Final = 64 << 20
_HOLD: Final = 512 << 20


@dataclass(frozen=True)
class _Waiting:
    """A step that is not reduced yet; `counts` are its candidates and commits where they are on their way."""

    step: Step
    counts: Arrival | None


class EvidenceRecorder:
    """Takes every step of a run in turn and gives the evidence of each of its B rows."""

    def __init__(self, first: Tensor, hold: int | None = None) -> None:
        """Record a batch whose rows have their first real token at canvas position `first` [B].

        `hold` bounds the bytes of steps that wait for being reduced together: 64 MiB by default on a CPU, 512 MiB
        elsewhere (twice that where the device is far behind). The evidence does not depend on it.
        """
        self._first = first
        usual = _HOLD_CPU if first.device.type == "cpu" else _HOLD
        self._hold = usual if hold is None else hold
        self._waiting: list[_Waiting] = []
        self._held = 0
        self._oldest: dict[torch.Size, Tensor] = {}
        self._memory_is_reused = False
        self._reduced: list[tuple[StepColumns, EventColumns]] = []

    def add(self, step: Step) -> None:
        """Take the run's next step, without ever waiting for the device."""
        sends = self._first.device.type in SENDING
        self._waiting.append(_Waiting(step, send(_counts([step])[0]) if sends else None))
        self._held += step.kept_bytes
        if self._held >= self._hold:
            self._make_room()
        if self._waiting:
            self._protect_newest()

    def finish(self) -> list[Evidence]:
        """Wait for the device and return the evidence of each row.

        Raises:
            SamplerError: there was no step.
        """
        self._reduce(len(self._waiting))
        if not self._reduced:
            raise SamplerError("no step was recorded: a run without steps has no evidence")
        steps, events = (_to_host(columns) for columns in zip(*self._reduced, strict=True))
        return [_of_row(row, steps, events) for row in range(len(self._first))]

    def _make_room(self) -> None:
        """Reduce steps whose counts the host can know; where it cannot without waiting, on a high guess."""
        everything = len(self._waiting)
        device = self._first.device.type
        if device in SENDING:
            known = self._arrived()
            if known:
                self._reduce(len(known), known)
                return
            if self._held < 2 * self._hold:
                return
        elif device == "cpu":
            self._reduce(everything)
            return
        most = self._waiting[0].step.candidates.numel()
        self._reduce(everything, [(most, most)] * everything)

    def _arrived(self) -> list[list[int]]:
        """Return the counts of the oldest steps, as far as they have reached the host."""
        known: list[list[int]] = []
        for waiting in self._waiting:
            counts = waiting.counts.read() if waiting.counts is not None else None
            if counts is None:
                break
            known.append(counts)
        return known

    @torch.no_grad()
    def _reduce(self, number: int, counts: Sequence[Sequence[int]] | None = None) -> None:
        """Reduce the first `number` steps. Without their `counts` the device is asked, which waits for it."""
        steps = [waiting.step for waiting in self._waiting[:number]]
        self._waiting = self._waiting[number:]
        self._held = sum(waiting.step.kept_bytes for waiting in self._waiting)
        start = 0
        for _, group in groupby(steps, key=lambda step: step.kind):
            alike = list(group)
            end = start + len(alike)
            candidates, commits = zip(*(counts[start:end] if counts else _counts(alike).tolist()), strict=True)
            self._reduced.append(reduce_steps(alike, self._first, candidates, commits))
            start = end

    def _protect_newest(self) -> None:
        """Keep a waiting step's logits from being written over by a later forward.

        Some models return the same memory time and again. The memory of the oldest step (of each shape) tells: it is
        kept allocated, so nothing else can come to lie there. By the time it comes again, no other has been written to.
        """
        newest = self._waiting[-1].step.logits
        oldest = self._oldest.get(newest.shape)
        if oldest is None or self._memory_is_reused:
            self._waiting[-1] = _owned(self._waiting[-1])
            self._oldest.setdefault(newest.shape, newest)
        elif _memory(newest) == _memory(oldest):
            self._memory_is_reused = True
            self._waiting = [_owned(waiting) for waiting in self._waiting]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _owned(waiting: _Waiting) -> _Waiting:
    step = waiting.step
    logits = step.logits.detach().clone()
    if step.scores is step.logits:
        scores = logits
    else:
        scores = step.scores.detach().clone() if _memory(step.scores) == _memory(step.logits) else step.scores
    return replace(waiting, step=replace(step, logits=logits, scores=scores))


def _counts(steps: Sequence[Step]) -> Tensor:
    """Return how many candidates and commits each of `steps` has in the whole batch, [S, 2]."""
    masks = torch.stack([step.candidates for step in steps]), torch.stack([step.committed for step in steps])
    return torch.stack(masks, dim=1).sum((2, 3))


def _to_host(columns: Sequence[StepColumns | EventColumns]) -> dict[str, npt.NDArray[Any]]:
    names = [field.name for field in fields(columns[0])]
    return {name: torch.cat([getattr(column, name) for column in columns]).cpu().numpy() for name in names}


def _of_row(row: int, steps: dict[str, npt.NDArray[Any]], events: dict[str, npt.NDArray[Any]]) -> Evidence:
    """Return the evidence of one row."""
    mine = events["real"] & (events["rows"] == row)
    narrow = np.int32
    return Evidence(
        top_tokens=events["top_tokens"][mine].astype(narrow),
        top_scores=events["top_scores"][mine],
        runner_up_tokens=events["runner_up_tokens"][mine].astype(narrow),
        runner_up_scores=events["runner_up_scores"][mine],
        confidences=events["confidences"][mine],
        candidates=steps["candidates"][:, row].astype(narrow),
        rejected_positions=steps["rejected_positions"][:, row].astype(narrow),
        rejected_tokens=steps["rejected_tokens"][:, row].astype(narrow),
        rejected_confidences=steps["rejected_confidences"][:, row],
        ties=steps["ties"][:, row].astype(narrow),
        non_finite=steps["non_finite"][:, row].astype(narrow),
        logits_digests=steps["logits_digests"][:, row],
        sketches=steps["sketches"][:, row],
        sketched=steps["sketched"][:, row],
        noise_digests=steps["noise_digests"][:, row],
    )
