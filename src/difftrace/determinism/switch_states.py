"""What is in force, switch by switch, and how that is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from difftrace.determinism.profiles import AS_FOUND, Row, Value
from difftrace.determinism.read_back import NoReadBackError, read_back
from difftrace.determinism.switches import SWITCHES, UnreadableError
from difftrace.determinism.variables import was_in_time


@dataclass(frozen=True)
class SwitchState:
    """One switch.

    Attributes:
        name: environment variable or setting.
        requested: what the profile asks for; None where a variable must not be set.
        effective: what is found.
        in_force: whether that is what was asked for and has taken effect; None where nothing tells.
        checked: how that is known.
        required: whether determinism is not in force without it.
        when: when it has to be set.
        why: what goes wrong without it.
    """

    name: str
    requested: Value
    effective: Value
    in_force: bool | None
    checked: str
    required: bool
    when: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: requested {_shown(self.requested)}, in force {_shown(self.effective)} ({self.checked})"


def states(requested: Mapping[Row, Value]) -> tuple[SwitchState, ...]:
    """Return the state of every row, held against the value that is requested of it."""
    return tuple(_state(row, value) for row, value in requested.items())


def _state(row: Row, requested: Value) -> SwitchState:
    effective, in_force, checked = _variable(row) if row.is_variable else _setting(row, requested)
    return SwitchState(row.name, requested, effective, in_force, checked, row.required, row.when, row.why)


def _setting(row: Row, requested: Value) -> tuple[Value, bool | None, str]:
    switch = SWITCHES[row.name]
    try:
        effective = switch.read()
    except UnreadableError as error:
        return None, None, str(error)
    return effective, requested in (AS_FOUND, effective), switch.where


def _variable(row: Row) -> tuple[Value, bool | None, str]:
    value = os.environ.get(row.name)
    if row.value == AS_FOUND:
        return value, True, "environment"
    try:
        effective, source = read_back(row.name)
    except NoReadBackError:
        return _unread(row, value)
    return effective, row.accepts(effective), source


def _unread(row: Row, value: str | None) -> tuple[Value, bool | None, str]:
    """Return what can be said of a variable that nothing reads back."""
    if row.when == "interpreter start":
        # It could have been set, without effect, by this very process.
        taken = value is not None and row.accepts(value) and was_in_time(row.name, value)
        if taken:
            return value, True, "environment, set in time"
        return "random", False, "sys.flags.hash_randomization"
    if not row.accepts(value):
        return value, False, "environment"
    if was_in_time(row.name, value):
        return value, True, "environment, set in time"
    if row.when.endswith("the device") and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return value, True, "environment, device not in use yet"
    if row.when == "first use of the device":
        return value, False, "environment, set after the device's first use"
    return value, None, "environment; whether in time, nothing tells"


def _shown(value: Value) -> str:
    return "unset" if value is None else str(value)
