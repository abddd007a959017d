"""How long a check takes, without what the model takes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Runs from its making on."""

    def __init__(self) -> None:
        self._start = perf_counter()

    @property
    def seconds(self) -> float:
        """What has passed, pauses left out."""
        return perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block's time out."""
        start = perf_counter()
        try:
            yield
        finally:
            self._start += perf_counter() - start
