"""Loops that tell their steps themselves, by `rec.step`, whatever model they call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from difftrace.capture.adapter import LoopAdapter
from difftrace.capture.tape import Tape


class StepsAdapter(LoopAdapter):
    """Listens to nothing."""

    name = "steps"

    def matches(self, target: Any) -> bool:
        """Only by name."""
        return False

    def attach(self, target: Any, tape: Tape) -> AbstractContextManager[None]:
        """Leave `target` alone."""
        return nullcontext()


ADAPTER = StepsAdapter()
