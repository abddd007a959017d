"""What `record` is asked for, checked before anything is recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from difftrace.core.errors import CaptureError
from difftrace.core.recording import JsonScalar

# What the recording itself notes among the arguments.
_NOTED: Final = "unverified_positions"
_LARGEST: Final = 2**31


def whole_number(value: Any, name: str) -> int | None:
    """Return the argument called `name`, None where it is None.

    Raises:
        CaptureError: it is no whole number from 0 on that fits in 31 bits.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < _LARGEST:
        raise CaptureError(f"{name}={value!r:.80}: it must be a whole number from 0 to {_LARGEST - 1}, or None")
    return int(value)


def truth_value(value: Any, name: str) -> bool | None:
    """Return the argument called `name`, None where it is None.

    Raises:
        CaptureError: it is neither True nor False.
    """
    if value is not None and not isinstance(value, bool):
        raise CaptureError(f"{name}={value!r:.80}: it must be True, False or None")
    return value


def scalars(arguments: Any) -> dict[str, JsonScalar]:
    """Return a loop's arguments as a baseline keeps them.

    Raises:
        CaptureError: they are no mapping of names to text, numbers, truth values or None; or one is infinite or NaN,
            which compares as different from itself.
    """
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise CaptureError(f"arguments must map names to values, it is a {type(arguments).__name__}")
    for name, value in arguments.items():
        if not isinstance(name, str):
            raise CaptureError(f"arguments: the name {name!r:.80} is no text")
        if name == _NOTED:
            raise CaptureError(f"arguments: {_NOTED} is what the recording itself notes, call yours otherwise")
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not (value is None or isinstance(value, (str, int, float))) or not is_finite:
            raise CaptureError(
                f"arguments[{name!r}] is {value!r:.80}: it must be text, a finite number, a truth value or None"
            )
    return dict(arguments)
