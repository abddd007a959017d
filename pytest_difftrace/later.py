"""Something that is done in a thread when it is due, while the tests go on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Later:
    """One thread that waits until it is asked, then until it is time, and then acts once.

    It starts when it is first asked, and stays: threads that come and go would be seen by tests that count them.
    """

    def __init__(self, act: Callable[[], None], left: Callable[[], float]) -> None:
        """Take what to do, which must not raise, and how many seconds are left until it is to be done."""
        self._act = act
        self._left = left
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """See to it that it is done when it is time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="difftrace-report", daemon=True)
            self._thread.start()
        self._asked.set()

    def end(self) -> None:
        """Do no more of it; what is under way is waited for."""
        self._ended.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            while not self._ended.is_set() and (left := self._left()) > 0:
                self._ended.wait(left)
            if self._ended.is_set():
                return
            self._act()
