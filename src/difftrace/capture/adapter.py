"""What a recorder has to be told about an engine: how its calls, its canvases and its return value are to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from difftrace.capture.forward import wrapped
from difftrace.capture.outputs import finals_of
from difftrace.capture.tape import Tape
from difftrace.core.errors import CaptureError

Tokens = npt.NDArray[np.int64]

# Under which names published models take their canvas and how many of its positions their cache holds.
_INPUTS = ("input_ids", "x", "tokens", "idx")
# What else holds integers.
_NO_INPUTS = ("attention_mask", "position_ids", "token_type_ids", "cache_position", "replace_position", "labels")
_CACHES = ("past_key_values", "past_key_value", "cache")


@dataclass(frozen=True)
class Look:
    """What one call of the model shows, while the loop runs: nothing of it may be read back from the device.

    Attributes:
        ids: token ids, integers [R, W] or [W]: a window of R canvases. The recorder makes its own copy.
        offset: canvas position of the first column; a 0-dimensional tensor where only the device knows it. None where
            the call does not say: then it is 0, and no call may show less than one before it.
        attention_mask: 1 where the canvas is attended to, else 0, [R, M]; columns count from canvas position 0.
        prompt: the prompt [B, P] where it lies outside the canvas.
        facts: whatever else of the call the adapter wants to see again in `Forward.facts`; no tensors.
    """

    ids: Tensor
    offset: int | Tensor | None = 0
    attention_mask: Tensor | None = None
    prompt: Tensor | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Forward:
    """The same call after the run, on the host.

    Attributes:
        ids: token ids of the batch's B rows, without those that guidance added, [B, W].
        offset: canvas position of the first column.
        facts: what the adapter noted.
    """

    ids: Tokens
    offset: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Final:
    """One row of what the engine returned.

    Attributes:
        tokens: token ids [n].
        start: canvas position of the first; None leaves finding it to the recorder, which tries the whole canvas and
            the canvas without padding, and the part after the prompt, and takes the one that fits best. An engine
            without a mask that rewrites must say it, or return whole canvases.
        thinned: whether the engine took one token, EOS, out of the row wherever it was. The canvas has to be known
            without it, from steps that were told.
    """

    tokens: Tokens
    start: int | None = None
    thinned: bool = False


class Adapter(Protocol):
    """How one engine's loop is read. `LoopAdapter` has an answer to everything; an adapter changes what differs.

    Attributes:
        name: what `record(engine=…)` and baselines call it.
        version: raised whenever the same run would be recorded as other decisions than before.
        rewrites: whether a position may change again after it was committed.
        grows: whether a position is no part of the canvas before some call shows it, so that its first token is a
            commit; else it held the mask until then.
        shift: 0 where row p of the logits scores position p, 1 where it scores position p + 1.
        by_probability: whether the loop, unless it draws random numbers, commits the masks whose best tokens have the
            highest softmax probability. Evidence says what it chose among where every step agrees with that.
        candidates: which positions a call's logits are about: the `masks` that it shows, or the one `next` to it.
    """

    name: str
    version: int
    rewrites: bool
    grows: bool
    shift: int
    by_probability: bool
    candidates: Literal["masks", "next"]

    def matches(self, target: Any) -> bool:
        """Say whether `target` is this engine's, for engine="auto"; imports nothing and never raises."""
        ...

    def mask_id(self, target: Any) -> int | None:
        """Return the id of the mask, None where there is none."""
        ...

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Return the context in which `tape` hears of every call.

        Raises:
            CaptureError: `target` is nothing to attach to, or the engine is not installed.
        """
        ...

    def look(self, arguments: Mapping[str, Any]) -> Look | None:
        """Return what a call with `arguments` (by parameter name) shows, None where it is no part of the loop.

        Runs before the call, inside the loop: it must not wait for the device.
        """
        ...

    def logits(self, answer: Any) -> Any:
        """Return the logits [R, W, V] in what the model answered, anything else where it has none; as `look`."""
        ...

    def decides(self, forwards: Sequence[Forward], mask_id: int | None) -> Sequence[bool]:
        """Say which calls are steps, and which only fill a cache or complete another; after the run."""
        ...

    def finals(self, output: Any) -> Sequence[Final] | None:
        """Return the rows of what the engine returned, None where it holds none."""
        ...

    def canvases(self, output: Any) -> Sequence[Any] | None:
        """Return the canvas [B, L] before the first step and after each, where the engine hands them out."""
        ...

    def source(self) -> Path | None:
        """Return the file that holds the engine's sampler; None is the one the model was first called from."""
        ...


class LoopAdapter:
    """A loop that calls `model(ids)` or `model(input_ids=ids)` once a step, for one canvas, and returns its canvases.

    Windows are understood where a call passes `replace_position` (its first True is where the window starts) or a
    cache that tells its length. The logits of all calls but those of guidance, made apart, are decided on.
    """

    name = "generic"
    version = 1
    rewrites = True
    grows = False
    shift = 0
    by_probability = False
    candidates: Literal["masks", "next"] = "masks"

    def matches(self, target: Any) -> bool:
        """Anything can be tried."""
        return True

    def mask_id(self, target: Any) -> int | None:
        """The configuration's `mask_token_id`, or `mask_id`."""
        config = getattr(target, "config", None)
        for name in ("mask_token_id", "mask_id"):
            found = getattr(config, name, None)
            if isinstance(found, int):
                return found
        return None

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Wrap the instance's `forward`."""
        return wrapped(target, tape, self.look, self.logits)

    def look(self, arguments: Mapping[str, Any]) -> Look | None:
        """Find ids, window and attention mask among the usual names."""
        return Look(
            self.ids(arguments),
            offset=window_offset(arguments),
            attention_mask=batch_mask(arguments.get("attention_mask")),
        )

    def ids(self, arguments: Mapping[str, Any]) -> Tensor:
        """Return the token ids among `arguments`: under a usual name, else the first rows of integers, or only row.

        Raises:
            CaptureError: there are none, or several single rows, one of which may be times.
        """
        named = None
        for name in _INPUTS:
            value = arguments.get(name)
            if isinstance(value, Tensor):
                if _are_integers(value):
                    return value
                named = value
                break
        given = {name: value for name, value in arguments.items() if name not in _NO_INPUTS}
        found = [value for value in (given.values() if named is None else ()) if _are_integers(value)]
        found = [value for value in found if value.dim() > 1] or found
        if found and (found[0].dim() > 1 or len(found) == 1):
            return found[0]
        if found:
            raise CaptureError(
                f"the loop calls the model with several rows of integers ({', '.join(given)}), any of which may be its "
                "token ids: write an adapter whose ids() says which"
            )
        if arguments.get("inputs_embeds") is not None or any(isinstance(one, Tensor) for one in arguments.values()):
            raise CaptureError(
                "the loop calls the model with embeddings (inputs_embeds) instead of token ids, which say nothing of "
                "the canvas: give rec.step(before, after) the canvases"
            )
        raise CaptureError(
            f"the loop calls the model without token ids: the arguments are {', '.join(arguments) or 'none'}. "
            "Give rec.step(before, after) the canvases, or write an adapter whose look() finds them"
        )

    def logits(self, answer: Any) -> Any:
        """Find them as `.logits`, under that key, first in a tuple, or as the answer itself."""
        if isinstance(answer, Mapping):
            return answer.get("logits")
        if isinstance(answer, (tuple, list)):
            return answer[0] if answer else None
        return getattr(answer, "logits", answer)

    def decides(self, forwards: Sequence[Forward], mask_id: int | None) -> Sequence[bool]:
        """All of them."""
        return [True] * len(forwards)

    def finals(self, output: Any) -> Sequence[Final] | None:
        """Look for integers in the usual places: a tensor, rows, `.sequences`, or a tuple's first entry."""
        rows = finals_of(output)
        return None if rows is None else [Final(row) for row in rows]

    def canvases(self, output: Any) -> Sequence[Any] | None:
        """None: most engines keep none."""
        return None

    def source(self) -> Path | None:
        """Take the file that called the model."""
        return None


def _are_integers(value: Any) -> TypeGuard[Tensor]:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return False
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def window_offset(arguments: Mapping[str, Any]) -> int | Tensor | None:
    """Return where the window of a call starts: the first True of `replace_position` [R, L], else the cache's length,
    else None.

    Found on Fast-dLLM's loops (NVlabs/Fast-dLLM, generate.py): baseline, prefix cache and dual cache.
    """
    replaced = arguments.get("replace_position")
    if isinstance(replaced, Tensor):
        return replaced.reshape(-1, replaced.shape[-1])[0].to(torch.uint8).argmax()
    for name in _CACHES:
        if arguments.get(name) is not None:
            return cache_length(arguments[name])
    return None


def cache_length(cache: Any) -> int:
    """Return how many positions a cache holds: a transformers cache, or layers of (keys, values) [B, H, T, D].

    Raises:
        CaptureError: it is of another kind.
    """
    counted = getattr(cache, "get_seq_length", None)
    if callable(counted):
        length = counted()
        if isinstance(length, int):
            return length
    elif isinstance(cache, (tuple, list)):
        if not cache or cache[0] is None:
            return 0
        keys = cache[0][0] if isinstance(cache[0], (tuple, list)) else cache[0]
        if isinstance(keys, Tensor) and keys.dim() >= 2:
            return int(keys.shape[-2])
    raise CaptureError(
        f"the loop passes a cache of type {type(cache).__name__}, which does not say how many positions it holds: "
        "record it with rec.step(before, after), or write an adapter whose look() knows"
    )


def batch_mask(mask: Any) -> Tensor | None:
    """Return a mask of whole positions [R, M]; None for one of pairs of positions, or none."""
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
