"""Settings under which one machine repeats a run bit for bit, checked and put back afterwards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from operator import methodcaller
from types import TracebackType
from typing import Final, Literal

import torch

from difftrace.core.errors import DeterminismError, DeterminismWarning
from difftrace.determinism.devices import family_of, profile_of, refuse_unfit
from difftrace.determinism.generators import seed_all
from difftrace.determinism.profiles import AS_FOUND, Row, Value, early_rows, rows
from difftrace.determinism.switch_states import SwitchState, states
from difftrace.determinism.switches import ATTENTION_BACKENDS, SWITCHES, UnreadableError
from difftrace.determinism.variables import note_taken, put, was_in_time

# Test runners then show the caller's line, not ours.
__tracebackhide__ = methodcaller("errisinstance", DeterminismError)

Level = Literal["strict", "warn"]
LEVELS: Final = ("strict", "warn")

_held: list[Enforcement] = []


def enforce(
    seed: int = 0,
    level: Level = "strict",
    profile: str | None = None,
    *,
    device: torch.device | str | None = None,
    threads: int | None = None,
    attention: str | None = None,
) -> Enforcement:
    """Make this process deterministic from here on: `enforce(seed=0)`, or `with enforce(seed=0): …` for a while.

    Seeds the generators of `random`, numpy and torch (all devices) and sets every switch of `profile`
    (`difftrace.determinism.profiles`), reading each back.

    Args:
        seed: for all generators.
        level: "strict" raises where a switch cannot take effect, and makes torch raise at operations without a
            deterministic form; "warn" warns at both.
        profile: None is the one of `device`.
        device: what will run; None is the accelerator that torch finds, else the CPU.
        threads: number of CPU threads; None is what the profile says, which mostly is to leave it as it is.
        attention: the one backend of scaled_dot_product_attention, `math` (None), `flash`, `efficient` or `cudnn`.
            One that cannot run raises in the model; there is no silent fallback.

    Returns:
        What was done; leaving its context (also by an exception) or `restore()` puts every setting, generator state
        and environment variable back to what it was.

    Raises:
        DeterminismError: an unknown profile or one that is not for `device`; an attention backend that does not exist;
            under "strict" a switch that can no longer take effect, or a variable whose value cannot be kept. Nothing
            has changed then.
    """
    if level not in LEVELS:
        raise DeterminismError(f"level must be strict or warn, not {level!r}")
    if attention is not None and attention not in ATTENTION_BACKENDS:
        raise DeterminismError(f"attention must be {', '.join(ATTENTION_BACKENDS)}, not {attention!r}")
    asked: dict[str, Value] = {"threads": threads, "attention_backend": attention}
    if level == "warn":
        asked["deterministic_algorithms"] = "warn"
    overridden = {key: value for key, value in asked.items() if value is not None}
    with ExitStack() as undo:
        # Which AMD device it is cannot be asked without starting it, which comes after its variables.
        for row in early_rows(profile or family_of(device)):
            _set_variable(row, undo)
        name = profile or profile_of(device)
        if device is not None:
            refuse_unfit(name, device)
        requested = {row: overridden.get(row.name, row.value) for row in rows(name)}
        return Enforcement(seed, level, name, requested, undo.pop_all())


class Enforcement:
    """What one call of `enforce` set, and the way back. A context manager."""

    def __init__(self, seed: int, level: Level, profile: str, requested: Mapping[Row, Value], begun: ExitStack) -> None:
        self.seed = seed
        self.level = level
        self.profile = profile
        self._requested = dict(requested)
        with begun as undo:
            seed_all(seed, undo)
            for row in self._requested:
                if row.is_variable and row.value != AS_FOUND:
                    _set_variable(row, undo)
            _set_switches({row.name: value for row, value in self._requested.items() if not row.is_variable}, undo)
            found = self.states()
            missing = [state for state in found if state.required and state.in_force is False]
            self._complain(list(map(_late, missing)), stacklevel=4)
            self._undo = undo.pop_all()
        self._took = frozenset(state.name for state in found if state.in_force)
        _held.append(self)

    def states(self) -> tuple[SwitchState, ...]:
        """Return every switch as it is now, held against what was asked for."""
        return states(self._requested)

    def drift(self) -> tuple[SwitchState, ...]:
        """Return the switches that were in force at first and are not any more."""
        return tuple(state for state in self.states() if state.name in self._took and state.in_force is False)

    def check(self) -> None:
        """Make sure that nothing has changed a switch since; raises DeterminismError, or warns under level "warn"."""
        self._complain([f"{state}: changed since determinism was enforced" for state in self.drift()], stacklevel=3)

    def restore(self) -> None:
        """Put everything back; once is enough. Raises DeterminismError while a later `enforce` is still in force."""
        if self not in _held:
            return
        if _held[-1] is not self:
            raise DeterminismError("a later enforce() is still in force: restore that one first")
        _held.pop()
        self._undo.close()

    def __enter__(self) -> Enforcement:
        if self not in _held:
            raise DeterminismError("this enforce() was restored already: call enforce() anew")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def _complain(self, problems: list[str], stacklevel: int) -> None:
        if problems and self.level == "strict":
            raise DeterminismError("\n".join(problems))
        for problem in problems:
            warnings.warn(problem, DeterminismWarning, stacklevel=stacklevel)


def innermost() -> Enforcement | None:
    """Return the enforcement in force, the latest where they nest."""
    return _held[-1] if _held else None


def _set_switches(wanted: Mapping[str, Value], undo: ExitStack) -> None:
    """Set what this torch has. Everything is kept before anything is set, because some switches set others too."""
    known = []
    for name in wanted:
        with suppress(UnreadableError):
            undo.callback(SWITCHES[name].keep())
            known.append(name)
    for name in known:
        if wanted[name] not in (AS_FOUND, _read(name)):
            SWITCHES[name].write(wanted[name])


def _read(name: str) -> Value:
    try:
        return SWITCHES[name].read()
    except UnreadableError:
        return None


def _set_variable(row: Row, undo: ExitStack) -> None:
    before = os.environ.get(row.name)
    if row.when == "interpreter start":
        return
    of_device = row.when.endswith("the device")
    in_use = of_device and _device_in_use()
    if not row.accepts(before):
        if row.refuses and before is not None:
            return
        if in_use and row.when == "first use of the device" and not was_in_time(row.name, _text(row.value)):
            return
        undo.callback(put, row.name, before)
        put(row.name, _text(row.value))
    if of_device and not in_use:
        undo.callback(_take_back_unless_used, note_taken(row.name, os.environ.get(row.name)))


def _take_back_unless_used(take_back: Callable[[], None]) -> None:
    # A device that was started meanwhile has seen the variable, and will not look again.
    if not _device_in_use():
        take_back()


def _device_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def _late(state: SwitchState) -> str:
    """Return what is wrong with a switch that is not in force although it was asked for, and what to do."""
    if state.when == "any time":
        return f"{state}: torch did not take it"
    do = f"unset {state.name}" if state.requested is None else f"export {state.name}={state.requested}"
    return (
        f"{state}: it has to be there before the {state.when}; {do} before Python starts"
        " (pytest does it with --difftrace-record and --difftrace-verify)"
    )
