"""Random generators: seeded on the way in, put back on the way out."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch


def seed_all(seed: int, undo: ExitStack) -> None:
    """Seed `random`, numpy and torch on the CPU and every device; `undo` puts their states back."""
    undo.callback(random.setstate, random.getstate())
    undo.callback(np.random.set_state, np.random.get_state())
    _keep_devices(undo)
    undo.callback(torch.set_rng_state, torch.get_rng_state())
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _keep_devices(undo: ExitStack) -> None:
    # Any: the modules of the device types share these functions by convention alone.
    kinds: tuple[tuple[Any, object], ...] = (
        (torch.cuda, torch.version.cuda or torch.version.hip),
        (torch.xpu, torch.version.xpu),
    )
    for module, built in kinds:
        if module.is_initialized():
            undo.callback(module.set_rng_state_all, module.get_rng_state_all())
        elif built:
            # A device that is not in use has no state to put back, and asking for one would start it. A seed waits
            # for its first use, the latest one given; the one before ours was that of the CPU, or a random one.
            undo.callback(module.manual_seed_all, torch.initial_seed())
    if torch.backends.mps.is_available():
        undo.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())


def host_states() -> dict[str, object]:
    """Return the states of the process's own generators, in a form that can be compared."""
    return {"random.random": random.getstate(), "numpy.random": _comparable(np.random.get_state(legacy=False))}


def _comparable(state: object) -> object:
    if isinstance(state, dict):
        return {name: _comparable(value) for name, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state
