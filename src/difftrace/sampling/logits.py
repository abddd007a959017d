"""All logits of a run, on the host."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.sampling.step import Step


class LogitsRecorder:
    """Copies what the model returned at every step to the host, without waiting for the device until the end."""

    def __init__(self, first: Tensor, steps: int) -> None:
        """Record `steps` steps of a batch whose rows have their first real token at canvas position `first` [B]."""
        self._first = first
        self._steps = steps
        self._added = 0
        self._kept = torch.empty(0)

    def add(self, step: Step) -> None:
        """Take the run's next step, of the shape of the first.

        Raises:
            SamplerError: the logits of all steps do not fit into the memory that is available.
        """
        logits = step.logits.detach().reshape(step.passes, len(self._first), *step.logits.shape[1:])
        if self._added == 0:
            self._kept = self._room_for(logits)
        self._kept[self._added].copy_(logits, non_blocking=True)
        self._added += 1

    def finish(self) -> list[Tensor]:
        """Wait for the device and return each row's logits, [steps, passes, L, V] in the model's dtype.

        L leaves padding out; `passes` is 1, or 2 under guidance: conditional, then unconditional.
        """
        if self._first.device.type != "cpu":
            torch.accelerator.synchronize(self._first.device)
        return [self._kept[:, :, row, padding:] for row, padding in enumerate(self._first.tolist())]

    def _room_for(self, logits: Tensor) -> Tensor:
        needed = self._steps * logits.numel() * logits.element_size()
        available = _available_memory()
        if available is not None and needed > available:
            raise SamplerError(
                f"record='logits' needs {needed / 2**30:.1f} GiB of host memory for {self._steps} steps of "
                f"{list(logits.shape)}, of which {available / 2**30:.1f} GiB are available: record 'evidence', or a "
                "shorter run"
            )
        # Only into pinned memory can a device copy while the host goes on.
        return torch.empty((self._steps, *logits.shape), dtype=logits.dtype, pin_memory=logits.device.type == "cuda")


def _available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, None where the system does not say (Linux does)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return None
