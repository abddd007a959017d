"""Environment variables: most of what they switch cannot be read back, so it matters when they were set. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

# Variables that had this value (None: that were not set) when what reads them first looked.
_TAKEN: dict[str, str | None] = {}


def put(name: str, value: str | None) -> None:
    """Set variable `name` to `value`, None to unset it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def note_taken(name: str, value: str | None) -> Callable[[], None]:
    """Note that variable `name` was `value` in time, so that it is in force until the process ends.

    Returns what takes the note back, for where nothing has read the variable after all.
    """
    before = {name: _TAKEN[name]} if name in _TAKEN else {}
    _TAKEN[name] = value

    def take_back() -> None:
        _TAKEN.pop(name, None)
        _TAKEN.update(before)

    return take_back


def was_in_time(name: str, value: str | None) -> bool | None:
    """Return whether variable `name` was `value` before anything could have read it; None where that is not known."""
    if name in _TAKEN:
        return _TAKEN[name] == value
    began_with = _at_start()
    if began_with is not None and began_with.get(name) == value:
        # Whatever has set it otherwise in between has set it back, or did so behind our back.
        return True
    return None


@lru_cache(maxsize=1)
def _at_start() -> dict[str, str] | None:
    """Return the environment that the interpreter was started with; None where the system does not show it."""
    try:
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return None
    pairs = (os.fsdecode(entry).partition("=") for entry in content.split(b"\0"))
    found = {name: value for name, equals, value in pairs if equals}
    # Programs that change their title in process lists write it over this.
    return found or None
