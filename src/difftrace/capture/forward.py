"""An instance's `forward`, wrapped while a loop is recorded.

Hooks of `torch.nn.Module` do not do: code that calls `self.forward` fires none.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from difftrace.capture.compiled import CALLED_COMPILED, why_not_seen
from difftrace.capture.tape import Tape
from difftrace.core.errors import CaptureError

if TYPE_CHECKING:
    from difftrace.capture.adapter import Look

_TAPE = "__difftrace_tape__"
_ATTACHING = threading.Lock()


@contextmanager
def wrapped(
    target: Any,
    tape: Tape,
    look: Callable[[Mapping[str, Any]], Look | None],
    logits: Callable[[Any], Any] = lambda answer: None,
) -> Iterator[None]:
    """Let `tape` hear of every call of `target.forward`, by `target(...)` or directly, and put it back in the end.

    `look` finds in a call's arguments what it shows, `logits` in the model's answer its logits.

    Raises:
        CaptureError: `target` has no forward, is being recorded already, or is compiled.
    """
    with _ATTACHING:
        original = _forward_of(target)
        own = vars(target).get("forward")
        wrapper = _wrapper(target, original, own, tape, look, logits)
        # Past a module's own __setattr__, which some wrappers redirect.
        vars(target)["forward"] = wrapper
        tape.sees_calls = True
    try:
        yield
    finally:
        # Where somebody wrapped the wrapper it stays below, where it does nothing any more.
        if vars(target).get("forward") is wrapper:
            if own is None:
                del vars(target)["forward"]
            else:
                vars(target)["forward"] = own
    reason = why_not_seen(target)
    if reason is not None:
        raise CaptureError(f"{tape.name} was compiled while it was recorded: {reason}")


def _forward_of(target: Any) -> Callable[..., Any]:
    name = type(target).__name__
    original: Callable[..., Any] | None = getattr(target, "forward", None)
    if isinstance(target, type) or original is None or not hasattr(target, "__dict__"):
        raise CaptureError(
            f"{name} has no forward to record: give the model object itself, or record the loop with "
            "rec.step(before, after)"
        )
    reason = why_not_seen(target)
    if reason is not None:
        raise CaptureError(f"{name} cannot be recorded: {reason}")
    tape = getattr(original, _TAPE, None)
    if tape is not None and tape.open:
        raise CaptureError(
            f"this {name} is being recorded already: one recording of a model at a time, none inside another"
        )
    return original


def _wrapper(
    target: Any,
    original: Callable[..., Any],
    own: Any,
    tape: Tape,
    look: Callable[[Mapping[str, Any]], Look | None],
    logits: Callable[[Any], Any],
) -> Callable[..., Any]:
    names = _positional(original)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not tape.open:
            return original(*args, **kwargs)
        if torch.compiler.is_compiling():
            raise CaptureError(f"{tape.name} {CALLED_COMPILED}")
        tape.claim()
        seen = look({**dict(zip(names(len(args)), args, strict=True)), **kwargs} if args else kwargs)
        # The loop may write to its canvas as soon as it has the answer; a call that fails is none.
        if seen is None:
            return original(*args, **kwargs)
        copied, state = tape.copy(seen), tape.random_state()
        answer = original(*args, **kwargs)
        tape.add_call(copied, logits(answer) if tape.scored else None, state)
        return answer

    wrapper = _Wrapper(forward, original, target, own)
    setattr(wrapper, _TAPE, tape)
    return wrapper


class _Wrapper:
    """Calls `forward`, and looks like `original`. A copy of its owner, deep or pickled, gets the forward that it would
    have without a recording: `own` where the instance had one, else its class's."""

    def __init__(self, forward: Callable[..., Any], original: Callable[..., Any], owner: Any, own: Any) -> None:
        functools.update_wrapper(self, original)
        self._forward = forward
        self._owner = owner
        self._own = own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._own is not None:
            return copy.deepcopy(self._own, memo)
        # Without its owner it is copied as a function is.
        made = memo.get(id(self._owner))
        return self if made is None else types.MethodType(type(made).forward, made)

    def __reduce__(self) -> Any:
        # The owner has no forward of its own yet when it is put together again.
        return (_itself, (self._own,)) if self._own is not None else (getattr, (self._owner, "forward"))


def _itself(value: Any) -> Any:
    return value


def _positional(original: Callable[..., Any]) -> Callable[[int], list[str]]:
    """Return what names the first n arguments of `original`."""
    try:
        parameters = inspect.signature(original).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    named = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]

    @functools.cache
    def names(count: int) -> list[str]:
        return named[:count] + [f"argument {index}" for index in range(len(named), count)]

    return names
