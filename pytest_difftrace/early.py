"""What has to be there before torch is imported; set where the command line or the ini file asks for a mode."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from difftrace.core.errors import DeterminismError
from difftrace.determinism.early_variables import value_for
from difftrace.determinism.profiles import CPU, CUDA, ROCM, Row, early_rows
from difftrace.determinism.variables import note_taken, put, was_in_time
from pytest_difftrace import restart

_HASH_SEED: Final = "PYTHONHASHSEED"
_LARGEST_HASH_SEED: Final = 2**32 - 1

# Why the hash seed is not in force; None where it is.
_PROBLEM = pytest.StashKey["str | None"]()


def start(config: pytest.Config, profile: str | None) -> None:
    """Set the variables of `profile`, None for that of the devices torch is built for; fix the hash seed if possible.

    Does not return where pytest is started anew. What it sets is put back when `config` goes out of use. Raises
    pytest.UsageError for a variable whose value cannot be kept.
    """
    restarted = os.environ.pop(restart.GUARD, None) is not None
    rows = early_rows(profile or _profile_of_build()) if find_spec("torch") is not None else ()
    values = {row.name: _value(row) for row in rows}
    if restarted:
        note_taken(_HASH_SEED, os.environ.get(_HASH_SEED))
    config.stash[_PROBLEM] = _fix_hash_seed(config, values, restarted)
    undo = ExitStack()
    config.add_cleanup(undo.close)
    # What torch is imported with is set in time for all that it reads; later that depends on what it has done so far.
    in_time = restarted or "torch" not in sys.modules
    for row in rows:
        _set(row, values[row.name], undo, in_time)


def hash_seed_problem(config: pytest.Config) -> str | None:
    """Return why the hash seed is not in force, None where it is."""
    if not sys.flags.hash_randomization:
        return None
    return config.stash.get(_PROBLEM, "the plugin was loaded by a conftest file, not by its entry point or -p")


def _fix_hash_seed(config: pytest.Config, values: dict[str, str | None], restarted: bool) -> str | None:
    """Start pytest anew if the hash seed needs it; return why it is not in force, None where it is."""
    seed = os.environ.get(_HASH_SEED, "")
    usable = re.fullmatch("[0-9]{1,10}", seed) is not None and int(seed) <= _LARGEST_HASH_SEED
    fixed = not sys.flags.hash_randomization or (usable and was_in_time(_HASH_SEED, seed) is True)
    decision = restart.decide(restart.this_process(config, restarted=restarted, seed_fixed=fixed))
    if isinstance(decision, restart.Stay):
        return decision.reason
    wanted = {**os.environ, **values, _HASH_SEED: seed if usable else "0", restart.GUARD: "1"}
    return restart.start_anew(decision.argv, {name: value for name, value in wanted.items() if value is not None})


def _value(row: Row) -> str | None:
    """Return what the variable has to be: what it is where that serves."""
    try:
        return value_for(row, os.environ.get(row.name))
    except DeterminismError as error:
        raise pytest.UsageError(str(error)) from None


def _set(row: Row, value: str | None, undo: ExitStack, in_time: bool) -> None:
    before = os.environ.get(row.name)
    if before != value:
        if _is_for_device(row) and _device_in_use():
            return
        put(row.name, value)
        undo.callback(_put_back, row.name, value, before)
    if in_time:
        undo.callback(_take_back_unless_read, row, note_taken(row.name, value))


def _put_back(name: str, ours: str | None, before: str | None) -> None:
    if os.environ.get(name) == ours:
        put(name, before)


def _take_back_unless_read(row: Row, take_back: Callable[[], None]) -> None:
    read = _device_in_use() if _is_for_device(row) else "torch" in sys.modules
    if not read:
        take_back()


def _is_for_device(row: Row) -> bool:
    return row.when.endswith("the device")


def _device_in_use() -> bool:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def _profile_of_build() -> str:
    """Return the profile of the devices that torch is built for, as its version.py says; torch is not imported."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return CPU
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return CPU
    names = partial(re.search, string=text, flags=re.MULTILINE)
    for name, profile in (("hip", ROCM), ("cuda", CUDA)):
        if names(rf"^{name}\b[^=\n]*=\s*['\"]"):
            return profile
    return CPU
