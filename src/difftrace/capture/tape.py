"""What a recording holds while the loop runs: copies of token ids, left on their device until it has ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from difftrace.capture.callers import file_of_loop, is_compiled
from difftrace.capture.compiled import CALLED_COMPILED
from difftrace.capture.scores import Answered, ScoreRecorder, Scores, random_state
from difftrace.capture.token_ids import are_token_ids, refuse_no_ids
from difftrace.core.errors import CaptureError

if TYPE_CHECKING:
    from difftrace.capture.adapter import Look

Tokens = npt.NDArray[np.int64]


_TOLD_WITHOUT = "the steps were told without logits [rows, length, vocabulary]"


@dataclass(frozen=True)
class Call:
    """One call of the model on the host: R rows of W columns from canvas position `offset` on, which the call said if
    `placed`."""

    ids: Tokens
    offset: int
    facts: Mapping[str, Any]
    placed: bool = True


@dataclass(frozen=True)
class Commit:
    """One explicit step on the host: canvases [B, L] before and after it, made when the model had been called
    `calls` times; [1, L] for the one `row` it is about."""

    before: Tokens
    after: Tokens
    row: int | None
    calls: int


@dataclass(frozen=True)
class Played:
    """A whole tape on the host; `attention_mask` [R, M] is the widest that calls had, the first of those, and `prompt`
    [B, P] the first call's.

    `scores` are the model's, None where they were not recorded, for the reason `unscored` if that was not asked for.
    """

    calls: Sequence[Call]
    commits: Sequence[Commit]
    attention_mask: Tokens | None
    prompt: Tokens | None
    scores: Scores | None = None
    unscored: str | None = None


@dataclass(frozen=True)
class _Step:
    before: Tensor
    after: Tensor
    row: int | None
    calls: int


class Tape:
    """Takes calls and explicit steps in their order; of one thread, until it is closed."""

    def __init__(self, name: str, scores: ScoreRecorder | None = None) -> None:
        """Record the model called `name` in messages, and what it says as far as `scores` takes it."""
        self.name = name
        self.open = True
        self.sees_calls = False
        self.failure: str | None = None
        self.caller: Path | None = None
        self._thread: dict[str, int] = {}
        self._calls: list[Look] = []
        self._steps: list[_Step] = []
        self._scores = scores
        self._since: tuple[Tensor, ...] = ()
        self._mask: Tensor | None = None
        self._prompt: Tensor | None = None

    @property
    def scored(self) -> bool:
        """Whether logits are of any use."""
        return self._scores is not None

    @property
    def answered(self) -> int:
        """How many calls the model has answered; where none can be seen, the told steps and the one under way."""
        return len(self._calls) if self.sees_calls else len(self._steps) + 1

    def claim(self) -> None:
        """Bind the tape to the first thread that uses it.

        Raises:
            CaptureError: another thread does.
        """
        mine = threading.get_ident()
        if self._thread.setdefault("first", mine) != mine:
            self.failure = (
                f"{self.name} was called from two threads, whose calls cannot be told apart: record one loop at a "
                "time, or load the model once for each"
            )
            raise CaptureError(self.failure)

    def copy(self, look: Look) -> Look:
        """Return `look` with ids that nobody writes to any more.

        Raises:
            CaptureError: its ids are no rows of token ids.
        """
        ids = look.ids.detach().clone()
        if ids.dim() not in (1, 2):
            raise CaptureError(f"{self.name} is called with ids of the shape {list(ids.shape)}, not [rows, length]")
        if ids.dim() == 1:
            ids = ids.unsqueeze(0)
        mask, prompt = look.attention_mask, look.prompt
        if self._calls:
            prompt = None
            if mask is not None and (self._mask is None or mask.shape[-1] <= self._mask.shape[-1]):
                mask = None
        if mask is not None:
            mask = mask.detach().clone()
        if prompt is not None:
            prompt = prompt.detach().clone()
        return type(look)(ids, look.offset, mask, prompt, look.facts)

    def begin(self) -> None:
        """Note where the random generators stand as the loop begins."""
        self._since = self.random_state()

    def random_state(self) -> tuple[Tensor, ...]:
        """Return the state of the random generators as a call begins; nothing where it is of no use."""
        return () if self._scores is None else random_state()

    def add_call(self, look: Look, logits: object = None, state: tuple[Tensor, ...] = ()) -> None:
        """Take a call that the model has answered with `logits`; `look` is a copy, `state` was as it began."""
        if is_compiled():
            raise CaptureError(f"{self.name} {CALLED_COMPILED}")
        if not self._calls:
            self._prompt = look.prompt
            self.caller = self.caller or file_of_loop()
        if look.attention_mask is not None:
            self._mask = look.attention_mask
        self._calls.append(look)
        if self._scores is not None:
            offset = 0 if look.offset is None else look.offset
            self._scores.add(Answered(look.ids, offset, self._mask, logits, state))

    def add_step(self, before: Any, after: Any, row: int | None = None, logits: object = None) -> None:
        """Take one step's canvases, integers [B, L] or [L], and what it was decided from, [B, L, V], if that is known.

        Where calls of the model are seen the logits are theirs.

        Raises:
            CaptureError: they are no two canvases of one shape.
        """
        self.claim()
        one, other = (self._canvas(name, canvas) for name, canvas in (("before", before), ("after", after)))
        if before is after:
            raise CaptureError("before and after are one tensor: keep before = canvas.clone() ahead of the step")
        if one.shape != other.shape:
            raise CaptureError(
                f"before {list(one.shape)} and after {list(other.shape)} differ in shape: loops whose canvas grows or "
                "shrinks within a step cannot be recorded"
            )
        if row is not None and (isinstance(row, bool) or not isinstance(row, int)):
            raise CaptureError(f"row={row!r:.80}: it must be the number of a row")
        if row is not None and (one.shape[0] != 1 or row < 0):
            raise CaptureError(f"row={row} goes with canvases [L] of that one row, not {list(one.shape)}")
        if not self._calls and not self._steps:
            self.caller = self.caller or file_of_loop()
        self._steps.append(_Step(one, other, row, len(self._calls)))
        if self._scores is not None and not self._calls:
            self._scores.add(Answered(one, 0, None, logits, self._since, _TOLD_WITHOUT))
            self._since = self.random_state()

    def play(self) -> Played:
        """Copy everything to the host, each device waited for once."""
        offsets = [call.offset for call in self._calls if isinstance(call.offset, Tensor)]
        tensors = [call.ids for call in self._calls] + offsets
        tensors += [canvas for step in self._steps for canvas in (step.before, step.after)]
        tensors += [part for part in (self._mask, self._prompt) if part is not None]
        arrays = iter(_to_host(tensors))
        ids = [next(arrays) for _ in self._calls]
        starts = [int(next(arrays)) if isinstance(call.offset, Tensor) else call.offset for call in self._calls]
        calls = [
            Call(window, start or 0, call.facts, placed=start is not None)
            for window, start, call in zip(ids, starts, self._calls, strict=True)
        ]
        _check_ids(ids, "call {} of the model")
        commits = [Commit(next(arrays), next(arrays), step.row, step.calls) for step in self._steps]
        for name in ("before", "after"):
            told = [getattr(commit, name) for commit in commits]
            _check_ids(told, f"call {{}} of rec.step, {name},")
        mask = None if self._mask is None else next(arrays)
        prompt = None if self._prompt is None else next(arrays)
        if self._scores is None:
            return Played(calls, commits, mask, prompt)
        return Played(calls, commits, mask, prompt, self._scores.finish(), self._scores.problem)

    def forget(self) -> None:
        """Drop what was recorded."""
        self._calls, self._steps, self._mask, self._prompt, self._scores = [], [], None, None, None

    def _canvas(self, name: str, canvas: Any) -> Tensor:
        try:
            ids = canvas if isinstance(canvas, Tensor) else torch.as_tensor(np.asarray(canvas))
        except (TypeError, ValueError) as error:
            raise CaptureError(f"{name} must be a canvas of token ids, [B, L] or [L]: {error}") from error
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.dim() not in (1, 2):
            raise CaptureError(
                f"{name} must be a canvas of token ids, [B, L] or [L], not {ids.dtype} {list(ids.shape)}"
            )
        ids = ids.detach().clone()
        return ids if ids.dim() == 2 else ids.unsqueeze(0)


def _check_ids(canvases: Sequence[Tokens], what: str) -> None:
    if canvases and all(ids.size for ids in canvases) and are_token_ids(np.concatenate(canvases, axis=None)):
        return
    for index, ids in enumerate(canvases):
        if not ids.size:
            raise CaptureError(f"{what.format(index)} shows no tokens: its canvas is {list(ids.shape)}")
        refuse_no_ids(ids, what.format(index))


def _to_host(tensors: Sequence[Tensor]) -> list[Tokens]:
    """Return `tensors` as int64 arrays of their shapes, with one copy from each device."""
    by_device: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(index)
    arrays: dict[int, Tokens] = {}
    for indices in by_device.values():
        flat = torch.cat([tensors[index].reshape(-1).to(torch.int64) for index in indices]).cpu().numpy()
        start = 0
        for index in indices:
            end = start + tensors[index].numel()
            arrays[index] = flat[start:end].reshape(tensors[index].shape)
            start = end
    return [arrays[index] for index in range(len(tensors))]
