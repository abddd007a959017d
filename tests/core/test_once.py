from __future__ import annotations

import threading

from difftrace.core.once import once


class Circle:
    computed = 0

    def __init__(self, radius: float) -> None:
        self.radius = radius

    @once
    def area(self) -> float:
        """Of the disk."""
        self.computed += 1
        return 3 * self.radius**2


def test_the_value_is_computed_when_first_asked_for_and_then_kept() -> None:
    circle, other = Circle(2), Circle(3)
    assert circle.computed == 0
    assert (circle.area, circle.area, other.area) == (12, 12, 27)
    assert (circle.computed, other.computed) == (1, 1)


def test_the_class_shows_what_it_is() -> None:
    assert isinstance(Circle.area, once)
    assert Circle.area.__doc__ == "Of the disk."


def test_one_instance_does_not_wait_for_another() -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow(Circle):
        @once
        def area(self) -> float:
            if self.radius == 0:
                started.set()
                assert go_on.wait(30)
            return self.radius

    waiting = threading.Thread(target=lambda: Slow(0).area)
    waiting.start()
    assert started.wait(30)
    assert Slow(1).area == 1
    go_on.set()
    waiting.join()
