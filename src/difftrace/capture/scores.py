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

from difftrace.core.evidence import Evidence
from difftrace.sampling.decision import confidence_of
from difftrace.sampling.evidence import EvidenceRecorder
from difftrace.sampling.step import Step

# Bytes of copied logits that wait for their best tokens to be found together, and how many numbers are stacked for it:
# small models then pay one copy a call.
_HOLD: Final = 32 << 20
_STACKED: Final = 1 << 18


@dataclass(frozen=True)
class Scores:
    """The model's scores on the host.

    Attributes:
        rows: for each of R rows its evidence; the events are the masks that each call showed, by position.
        noise: a digest of the default generators before each call and after the last, int64 [T + 1].
    """

    rows: Sequence[Evidence]
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


class ScoreRecorder:
    """Takes the logits of every call, without waiting for the device; gives up for good where one does not fit."""

    def __init__(self, mask_id: int, shift: int) -> None:
        """Record masks `mask_id`; logits are `shift` columns ahead of the position that they score."""
        self._mask_id = mask_id
        self._shift = shift
        self._recorder: EvidenceRecorder | None = None
        self._waiting: list[tuple[Tensor, int, Tensor]] = []
        self._held = 0
        self._shape: tuple[int, int] | None = None
        self._states: list[tuple[Tensor, ...]] = []
        self.problem: str | None = None

    @torch.no_grad()
    def add(self, call: Answered) -> None:
        """Take an answered call."""
        if self.problem is not None:
            return
        ids, logits = call.ids, call.logits
        if not isinstance(logits, Tensor) or logits.shape[:-1] != ids.shape or not logits.is_floating_point():
            self.problem = call.lacking
        elif self._shape is not None and self._shape != (ids.shape[0], logits.shape[-1]):
            self.problem = "the model was called with other numbers of rows"
        if self.problem is not None or not isinstance(logits, Tensor):
            self._recorder, self._waiting = None, []
            return
        if self._recorder is None:
            self._shape = (ids.shape[0], logits.shape[-1])
            self._recorder = EvidenceRecorder(_first(call))
        self._states.append(call.random_state)
        logits = logits.detach()
        # Samplers forbid tokens by writing to them.
        copy = torch.cat((logits[:, :1], logits[:, :-1]), dim=1) if self._shift else logits.clone()
        self._waiting.append((ids, call.offset if isinstance(call.offset, int) else 0, copy))
        self._held += copy.numel() * copy.element_size()
        if self._held >= _HOLD:
            self._pass_on()

    def finish(self) -> Scores | None:
        """Wait for the device and return everything, None where that is nothing."""
        if self._recorder is None:
            return None
        self._states.append(random_state())
        self._pass_on()
        return Scores(self._recorder.finish(), _digests(self._states))

    @torch.no_grad()
    def _pass_on(self) -> None:
        waiting, self._waiting, self._held = self._waiting, [], 0
        for group in _groups(waiting):
            logits = torch.stack([one[2] for one in group]) if len(group) > 1 else group[0][2].unsqueeze(0)
            tokens = logits.argmax(dim=-1)
            confidences = confidence_of(logits, tokens)
            for (ids, offset, own), best, confidence in zip(group, tokens, confidences, strict=True):
                masked = ids == self._mask_id
                assert self._recorder is not None
                self._recorder.add(Step(own, own, masked, masked, best, confidence, start=offset))


def _groups(waiting: Sequence[tuple[Tensor, int, Tensor]]) -> list[list[tuple[Tensor, int, Tensor]]]:
    """Return `waiting` in its order, cut where logits change their shape or become many."""
    groups: list[list[tuple[Tensor, int, Tensor]]] = []
    for one in waiting:
        logits = one[2]
        last = groups[-1] if groups else []
        fits = (len(last) + 1) * logits.numel() <= _STACKED
        if last and fits and last[0][2].shape == logits.shape and last[0][2].dtype == logits.dtype:
            last.append(one)
        else:
            groups.append([one])
    return groups


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
    digests = []
    for state in states:
        content = b"".join(part.numpy().tobytes() for part in state)
        digests.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True))
    return np.array(digests, dtype=np.int64)
