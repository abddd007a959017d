"""Causal language models under transformers' `generate` (generation/utils.py), greedy or sampled.

Every call is followed by one token behind what it showed, so the canvas grows by a position a step; rows that have
ended are filled up with padding. Loops of one's own that call the model in this way are read alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from difftrace.capture.adapter import Forward, Look, LoopAdapter, batch_mask, cache_length
from difftrace.capture.callers import nearest
from difftrace.capture.forward import wrapped
from difftrace.capture.tape import Tape
from difftrace.core.errors import CaptureError

_GENERATION: Final = "transformers.generation.utils"
_PREFILL: Final = "prefill"

# Where `generate` keeps the model that it compiles for a static cache, and how it did.
_COMPILED: Final = ("_compiled_call", "_last_compile_config")

# Which of its methods do something else than append a token to every row.
_OTHERS: Final = {
    "_beam_search": "beam search moves tokens from row to row: record it with num_beams=1",
    "_group_beam_search": "beam search moves tokens from row to row: record it with num_beams=1",
    "_constrained_beam_search": "beam search moves tokens from row to row: record it with num_beams=1",
    "_assisted_decoding": "assisted decoding takes back tokens that the model was shown: record it without assistant",
}


class CausalAdapter(LoopAdapter):
    """Reads one token a step."""

    name = "causal"
    rewrites = False
    grows = True
    shift = 1
    candidates = "next"

    def matches(self, target: Any) -> bool:
        """A decoder whose `generate` is transformers' own, without a mask."""
        config = getattr(target, "config", None)
        generate = getattr(type(target), "generate", None)
        is_theirs = getattr(generate, "__module__", None) == _GENERATION
        return is_theirs and not getattr(config, "is_encoder_decoder", False) and super().mask_id(target) is None

    def mask_id(self, target: Any) -> int | None:
        """None."""
        return None

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Wrap the instance's `forward`, and drop what `generate` compiled around it."""
        return _attached(target, tape, self)

    def look(self, arguments: Mapping[str, Any]) -> Look | None:
        """Take the window, and whether the prompt is being read; calls that only guidance makes are left out."""
        callers = nearest(2)
        if callers and callers[0][0] == "transformers.generation.logits_process":
            return None
        functions = [function for module, function in callers if module == _GENERATION]
        refused = next((_OTHERS[function] for function in functions if function in _OTHERS), None)
        if refused is not None:
            raise CaptureError(f"{refused}, or tell the steps with rec.step")
        facts = {_PREFILL: True} if functions[:1] in (["_prefill"], ["_prefill_chunking"]) else {}
        ids, offset = self.ids(arguments), _behind(arguments.get("past_key_values"))
        mask = None
        if facts or (isinstance(offset, int) and offset == 0):
            # Later ones only add what was generated.
            mask = _attended(arguments.get("attention_mask"), offset, ids.shape[-1])
        return Look(ids, offset, attention_mask=mask, facts=facts)

    def decides(self, forwards: Sequence[Forward], mask_id: int | None) -> Sequence[bool]:
        """All calls, but of those that read the prompt in pieces only the last.

        Raises:
            CaptureError: a call goes back to a shorter text.
        """
        ends = [forward.offset + forward.ids.shape[1] for forward in forwards]
        back = next((index for index, (one, other) in enumerate(itertools.pairwise(ends), 1) if other < one), None)
        if back is not None:
            raise CaptureError(
                f"call {back} of the model shows a text of {ends[back]} tokens, the call before it one of "
                f"{ends[back - 1]}: several runs were recorded as one, a warm-up perhaps, or the loop takes tokens "
                "back. Record one run at a time, or tell the steps with rec.step"
            )
        reads = [_PREFILL in forward.facts for forward in forwards] + [False]
        return [not (now and then) for now, then in itertools.pairwise(reads)]


@contextmanager
def _attached(target: Any, tape: Tape, adapter: CausalAdapter) -> Iterator[None]:
    before = getattr(target, _COMPILED[0], None)
    try:
        with wrapped(target, tape, adapter.look, adapter.logits):
            yield
    finally:
        for name in _COMPILED if before is None else ():
            getattr(target, "__dict__", {}).pop(name, None)


def _behind(cache: Any) -> int | Tensor:
    """Return where the window starts: behind what the cache holds. A static one counts on the device, in place."""
    counted = getattr(cache, "get_seq_length", None)
    length = counted() if callable(counted) else None
    if isinstance(length, Tensor):
        return length.detach().clone()
    return 0 if cache is None else cache_length(cache)


def _attended(mask: Any, offset: int | Tensor, width: int) -> Tensor | None:
    """Return the attention mask [R, M] up to the window's end, also where one of pairs [R, 1, W, K] was made of it."""
    whole = mask.get("full_attention") if isinstance(mask, Mapping) else mask
    if not isinstance(whole, Tensor) or whole.dim() != 4 or not isinstance(offset, int):
        return batch_mask(whole)
    last = whole[:, 0, -1, : offset + width]
    # True, or nothing added to the score, lets a position be attended to.
    return last if last.dtype == torch.bool else last == 0


ADAPTER = CausalAdapter()
