"""How often something is done that takes time, so that it takes a small part of the time in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Pace:
    """At once the first time, then after a pause: `pause` seconds, or `times` as long as the last time took."""

    def __init__(self, pause: float, times: float, clock: Callable[[], float] = perf_counter) -> None:
        self._pause = pause
        self._times = times
        self._clock = clock
        self._next = float("-inf")

    @property
    def due(self) -> bool:
        """Whether the pause is over."""
        return self.left <= 0

    @property
    def left(self) -> float:
        """How many seconds are left of the pause; not above 0 where it is over."""
        return self._next - self._clock()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Take the block as what is done."""
        start = self._clock()
        try:
            yield
        finally:
            end = self._clock()
            self._next = end + max(self._pause, self._times * (end - start))
