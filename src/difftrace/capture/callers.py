"""Who called the model: read off the stack, once in a recording."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Final

# What stands between a loop and the call of its model. The first frame that is none of these is the loop's.
_BETWEEN: Final = ("torch", "accelerate", "difftrace.capture", "functools", "contextlib")

# Runs a function that torch.compile returned. Functions excluded from compilation run in another class of the module.
_COMPILER: Final = ("torch._dynamo.eval_frame", "OptimizeContext")


def file_of_loop() -> Path | None:
    """Return the file of the code that called the model, None where no code did."""
    for frame in _stack():
        if not _is_between(_module(frame)):
            return Path(frame.f_code.co_filename)
    return None


def file_of_class(target: object) -> Path | None:
    """Return the file that holds the class of `target`, None where there is none."""
    try:
        return Path(inspect.getfile(type(target)))
    except (TypeError, OSError):
        return None


def nearest(count: int) -> list[tuple[str, str]]:
    """Return module and function of the `count` frames that are nearest to the call of the model."""
    found: list[tuple[str, str]] = []
    for frame in _stack():
        module = _module(frame)
        if not _is_between(module):
            found.append((module, frame.f_code.co_name))
            if len(found) == count:
                break
    return found


def is_compiled() -> bool:
    """Say whether code that torch.compile made is calling; seen only where it fell back on Python."""
    module, context = _COMPILER
    # Asked at every call: looking through the stack is left out where nothing can be compiled.
    return module in sys.modules and any(
        _module(frame) == module and type(frame.f_locals.get("self")).__name__ == context for frame in _stack()
    )


@lru_cache(maxsize=256)
def _is_between(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _BETWEEN)


def _stack() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
