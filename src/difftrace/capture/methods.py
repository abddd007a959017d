"""A method of one object, replaced while a loop is recorded: for engines whose choke point is not the forward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from difftrace.core.errors import CaptureError

_RECORDED = "__difftrace_method__"


@contextmanager
def replaced(
    target: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]], what: str
) -> Iterator[None]:
    """Call `around(original)` in place of `target.name`, and put the original back in the end.

    `what` says what should have been given, for messages.

    Raises:
        CaptureError: `target` has no such method, or it is being recorded already.
    """
    original = getattr(target, name, None)
    if isinstance(target, type) or not callable(original) or not hasattr(target, "__dict__"):
        raise CaptureError(f"{type(target).__name__} has no method {name} to record: give {what}")
    if hasattr(original, _RECORDED):
        raise CaptureError(f"this {type(target).__name__} is being recorded already: one recording at a time")
    own = vars(target).get(name)
    wrapper = functools.wraps(original)(around(original))
    setattr(wrapper, _RECORDED, True)
    vars(target)[name] = wrapper
    try:
        yield
    finally:
        if vars(target).get(name) is wrapper:
            if own is None:
                del vars(target)[name]
            else:
                vars(target)[name] = own
