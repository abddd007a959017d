"""A report is written often, but takes a small part of the time."""

from __future__ import annotations

import threading

from pytest_difftrace.later import Later
from pytest_difftrace.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_time_is_at_once_and_the_next_after_the_pause() -> None:
    clock = Clock()
    pace = Pace(0.5, 20, clock)
    assert pace.due
    with pace.timed():
        pass
    clock.now += 0.25
    assert not pace.due
    clock.now += 0.25
    assert pace.due


def test_what_is_left_for_later_is_done_once_it_is_due_and_no_more_after_the_end() -> None:
    left, done, first = [0.01, 0.01, 0.0], [], threading.Event()

    def act() -> None:
        done.append(len(left))
        first.set()

    later = Later(act, lambda: left.pop(0))
    later.ask()
    assert first.wait(30)
    later.end()
    later.ask()
    assert done == [0]
    Later(act, lambda: 0.0).end()
    assert done == [0]


def test_what_takes_long_is_done_more_seldom_also_where_it_fails() -> None:
    clock = Clock()
    pace = Pace(0.5, 20, clock)
    try:
        with pace.timed():
            clock.now += 1
            raise OSError
    except OSError:
        clock.now += 19
    assert not pace.due
    clock.now += 1
    assert pace.due
