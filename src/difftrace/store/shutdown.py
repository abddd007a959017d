"""Open writers are drained before the interpreter exits and before SIGTERM ends the process."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final, Protocol

from difftrace.core.text import printable

# Longer than orchestrators usually wait before they kill; a disk that hangs must not make a process immortal.
_DRAIN_SECONDS: Final = 60.0

_Handler = Callable[[int, "FrameType | None"], Any] | int | None


class Drainable(Protocol):
    """What a writer offers to be drained."""

    @property
    def pending(self) -> int:
        """Records that wait to be written."""

    def flush(self, timeout: float | None = None) -> None:
        """Return when what is pending now is written."""

    def close(self) -> None:
        """Write what is pending and end."""

    def disown(self) -> None:
        """Forget what the parent process will write."""


class _State:
    """What happens when the process is told to end.

    Attributes:
        open: the writers to drain; held here, for one that its owner forgot is drained too.
        guarded: those of them that SIGTERM drains.
        previous: the handler that ours stands in for; None while ours is not installed.
        draining: a SIGTERM has arrived, and a thread waits for the writers.
        drained: they are done, and the signal is on its way once more.
        exiting: the interpreter exits, which drains them anyway.
        deferred: a SIGTERM has arrived since, to be sent again at the end.
        finalizer: whether multiprocessing knows what to do at the end of this process.
    """

    def __init__(self) -> None:
        self.open: list[Drainable] = []
        self.guarded: list[Drainable] = []
        self.previous: _Handler = None
        self.draining = False
        self.drained = False
        self.exiting = False
        self.deferred = False
        self.finalizer = False


_state = _State()


def register(writer: Drainable, on_sigterm: bool) -> None:
    """Have `writer` closed when the interpreter exits and, with `on_sigterm`, flushed when SIGTERM arrives.

    SIGTERM can only be handled where the program lets Python handle it: in the main thread, from which a writer must
    be registered for that, and unless it is ignored, or handled by something that is not Python or by an event loop,
    which learns of the signal behind any handler's back and would be told twice, first before anything is written.
    """
    _state.open.append(writer)
    _at_exit_of_a_multiprocessing_child()
    if on_sigterm:
        _state.guarded.append(writer)
        _install()


def unregister(writer: Drainable) -> None:
    """Forget `writer`; with the last one the previous handler of SIGTERM returns."""
    for writers in (_state.open, _state.guarded):
        if writer in writers:
            writers.remove(writer)
    if not _state.guarded:
        _uninstall()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install() -> None:
    if os.name != "posix" or not _in_main_thread():
        return
    present = signal.getsignal(signal.SIGTERM)
    # Once installed, a handler put over ours is taken to call ours; the default one cannot.
    if present in (None, signal.SIG_IGN, _on_sigterm) or (_state.previous is not None and callable(present)):
        return
    if _is_of_an_event_loop(present):
        return
    _state.previous = present
    _state.draining = _state.drained = False
    signal.signal(signal.SIGTERM, _on_sigterm)


def _is_of_an_event_loop(handler: object) -> bool:
    """Return whether asyncio or uvloop put `handler` there: one that does nothing, for they watch a file descriptor."""
    module = getattr(handler, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in ("asyncio", "uvloop")


def _uninstall() -> None:
    # Elsewhere, and under a handler put over it, ours stays and only passes the signal on.
    if _state.previous is None or not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not _on_sigterm:
        return
    signal.signal(signal.SIGTERM, _state.previous)
    _state.previous = None


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """Pass the signal on, once the writers are drained.

    Waiting for them here, in the middle of whatever the main thread was doing, could wait for a lock that this very
    thread holds. Another thread waits instead and then sends the signal again.
    """
    if _state.drained or not any(writer.pending for writer in _state.guarded):
        _state.draining = _state.drained = False
        _pass_on(number, frame)
    elif _state.exiting:
        _state.deferred = True
    elif not _state.draining:
        _state.draining = True
        # Not threading.Thread, whose locks the interrupted code may hold.
        _thread.start_new_thread(_drain, ())


def _drain() -> None:
    for writer in list(_state.guarded):
        _reporting(partial(writer.flush, _DRAIN_SECONDS))
    _state.drained = True
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)


def _pass_on(number: int, frame: FrameType | None) -> None:
    previous = _state.previous
    if callable(previous):
        previous(number, frame)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _reporting(action: Callable[[], None]) -> None:
    """Do `action`; there is nobody left to raise its error to, so that it goes to stderr."""
    try:
        action()
    except Exception as error:
        print(f"difftrace: {printable(str(error))}", file=sys.stderr, flush=True)


def _at_exit() -> None:
    _state.exiting = True
    for writer in list(_state.open):
        _reporting(writer.close)
    _state.exiting = False
    if _state.deferred:
        _state.deferred = False
        signal.raise_signal(signal.SIGTERM)


def _at_exit_of_a_multiprocessing_child() -> None:
    """Children that multiprocessing forks end without running what `atexit` knows, but run their own finalizers."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _state.finalizer:
        _state.finalizer = True
        util.Finalize(None, _at_exit, exitpriority=0)


def _in_a_forked_child() -> None:
    for writer in _state.open:
        writer.disown()
    _state.open, _state.guarded = [], []
    _state.draining = _state.drained = _state.deferred = _state.finalizer = False


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)
