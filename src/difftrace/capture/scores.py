"""What the model said at every call, kept as the evidence that each masked position would have given.

Which of them a call decided on is only seen later, so each is treated as if it were committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from difftrace.capture.said import Answers, Said, reduce_answers
from difftrace.sampling.decision import confidence_of
from difftrace.sampling.evidence import EvidenceRecorder
from difftrace.sampling.step import Step

# Bytes of copied logits that wait for their best tokens to be found, and how many numbers are kept in one tensor for
# it: small models then pay one copy a call.
_HOLD: Final = 32 << 20
_TOGETHER: Final = 1 << 20

# What torch reduces.
_DTYPES: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Scores:
    """The model's scores on the host.

    Attributes:
        rows: for each of R rows what was said at the masks that each call showed, by position, or behind them.
        noise: a digest of the default generators before each call and after the last, int64 [T + 1].
    """

    rows: Sequence[Said]
    noise: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answered:
    """A call on `ids` [R, W] from canvas position `offset` on, with the `logits` that it returned, [R, W, V] if all is
    well; `attention_mask` [R, M] is the first call's, `random_state` what was the generators' when it began. `lacking`
    says what is wrong where there are no such logits."""

    ids: Tensor
    offset: int | Tensor
    attention_mask: Tensor | None
    logits: object
    random_state: tuple[Tensor, ...]
    lacking: str = "the model's answers hold no logits [rows, width, vocabulary]"


class _Chunk:
    """Copies of the logits of successive calls, of one shape, in one tensor: samplers forbid tokens by writing to the
    logits."""

    def __init__(self, logits: Tensor) -> None:
        """Make room for logits like `logits` [R, W, V], which are not taken yet."""
        # What is made in inference mode could not be written to outside of it.
        with torch.inference_mode(False):
            self._logits = logits.new_empty((max(1, _TOGETHER // logits.numel()), *logits.shape))
        self._ids: list[Tensor] = []
        self._starts: list[int] = []

    def takes(self, logits: Tensor) -> bool:
        """Say whether there is room for `logits`."""
        own = self._logits
        return len(self._ids) < own.shape[0] and own.shape[1:] == logits.shape and own.dtype == logits.dtype

    def add(self, ids: Tensor, logits: Tensor, start: int) -> None:
        """Take a call on `ids`, whose first column is canvas position `start`."""
        self._logits[len(self._ids)].copy_(logits)
        self._ids.append(ids)
        self._starts.append(start)

    def answers(self, mask_id: int | None) -> Answers:
        """Return the calls, of which the masks count, all where `mask_id` is None."""
        logits = self._logits[: len(self._ids)]
        where = (
            logits.new_ones(logits.shape[:-1], dtype=torch.bool)
            if mask_id is None
            else torch.stack(self._ids) == mask_id
        )
        return Answers(where, logits, self._starts)


class ScoreRecorder:
    """Takes the logits of every call, without waiting for the device; gives up for good where one does not fit."""

    def __init__(self, mask_id: int | None, shift: int) -> None:
        """Record masks `mask_id`, where logits are `shift` columns ahead of the position that they score; None records
        the one position behind each window, which the last column scores."""
        self._mask_id = mask_id
        self._shift = shift
        self._recorder: EvidenceRecorder | None = None
        self._first: Tensor | None = None
        self._waiting: list[_Chunk] = []
        self._held = 0
        self._reduced: list[list[Said]] = []
        self._shape: tuple[int, int] | None = None
        self._states: list[tuple[Tensor, ...]] = []
        self.problem: str | None = None

    def add(self, call: Answered) -> None:
        """Take an answered call."""
        if self.problem is not None:
            return
        ids, logits = call.ids, call.logits
        if not isinstance(logits, Tensor) or not self._fits(logits, ids) or not logits.is_floating_point():
            self.problem = call.lacking
        elif not logits.numel() or logits.dtype not in _DTYPES:
            self.problem = f"the logits are {str(logits.dtype).removeprefix('torch.')} {list(logits.shape)}"
        elif self._shape is not None and self._shape != (ids.shape[0], logits.shape[-1]):
            self.problem = "the model was called with other numbers of rows"
        if self.problem is not None or not isinstance(logits, Tensor):
            self._recorder, self._first, self._waiting = None, None, []
            return
        if ids.device != logits.device:
            # Models that are spread over devices take ids where their first part is.
            ids = ids.to(logits.device, non_blocking=True)
        if self._first is None:
            self._shape = (ids.shape[0], logits.shape[-1])
            first = ids.new_zeros(ids.shape[0]) if self._mask_id is None else _first(call)
            self._first = first.to(ids.device, non_blocking=True)
            self._recorder = None if logits.device.type == "cpu" else EvidenceRecorder(self._first)
        self._states.append(call.random_state)
        own = self._of_masks(logits.detach())
        if not (self._waiting and self._waiting[-1].takes(own)):
            self._waiting.append(_Chunk(own))
        self._waiting[-1].add(ids, own, call.offset if isinstance(call.offset, int) else 0)
        self._held += own.numel() * own.element_size()
        if self._held >= _HOLD:
            self._pass_on()

    def finish(self) -> Scores | None:
        """Wait for the device and return everything, None where that is nothing."""
        if self._first is None:
            return None
        self._states.append(random_state())
        self._pass_on()
        if self._recorder is not None:
            rows = [Said.of(row) for row in self._recorder.finish()]
        else:
            rows = [Said.joined(parts) for parts in zip(*self._reduced, strict=True)]
        return Scores(rows, _digests(self._states))

    def _fits(self, logits: Tensor, ids: Tensor) -> bool:
        if self._mask_id is None:
            # Of a long prompt only the last column may have been scored.
            return logits.dim() == 3 and logits.shape[0] == ids.shape[0] and logits.shape[1] > 0
        return logits.shape[:-1] == ids.shape

    def _of_masks(self, logits: Tensor) -> Tensor:
        """Return the logits of what counts, by position."""
        if self._mask_id is None:
            return logits[:, -1:]
        return torch.cat((logits[:, :1], logits[:, :-1]), dim=1) if self._shift else logits

    @torch.no_grad()
    def _pass_on(self) -> None:
        waiting, self._waiting, self._held = self._waiting, [], 0
        assert self._first is not None
        for chunk in waiting:
            answers = chunk.answers(self._mask_id)
            if self._recorder is None:
                self._reduced.append(reduce_answers(answers, self._first))
            else:
                _record(answers, self._recorder)


def _record(answers: Answers, recorder: EvidenceRecorder) -> None:
    """Hand answers on as steps that commit every place that counts: which did is only known later."""
    tokens = answers.logits.argmax(dim=-1)
    confidences = confidence_of(answers.logits, tokens)
    columns = (answers.logits, answers.where, tokens, confidences, answers.starts)
    for logits, where, best, confidence, start in zip(*columns, strict=True):
        recorder.add(Step(logits, logits, where, where, best, confidence, start=start))


def _first(call: Answered) -> Tensor:
    mask = call.attention_mask
    if mask is None or mask.shape[0] != call.ids.shape[0]:
        return call.ids.new_zeros(call.ids.shape[0])
    return (mask != 0).to(torch.uint8).argmax(dim=-1)


def random_state() -> tuple[Tensor, ...]:
    """Return the states of torch's default generators, which are kept on the host: the CPU's and that of the device in
    use, where one was started."""
    host = torch.get_rng_state()
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return (host, torch.cuda.get_rng_state()) if started else (host,)


def _digests(states: Sequence[tuple[Tensor, ...]]) -> npt.NDArray[np.int64]:
    digests: list[int] = []
    last = b""
    for state in states:
        held = b"".join(part.numpy().tobytes() for part in state)
        # Most loops draw nothing.
        if held != last:
            digest = hashlib.blake2b(held, digest_size=8).digest()
            digests.append(int.from_bytes(digest, "little", signed=True))
        else:
            digests.append(digests[-1])
        last = held
    return np.array(digests, dtype=np.int64)
