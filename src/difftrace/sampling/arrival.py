"""Numbers on their way from a device to the host, which nobody waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

# Where a copy to the host can be asked whether it is done ("cuda" is ROCm's name too).
SENDING: Final = ("cuda",)


class Arrival(Protocol):
    """Integers that were sent."""

    def read(self) -> list[int] | None:
        """Return them if they are there, else None; never wait."""
        ...


@dataclass(frozen=True)
class _DeviceArrival:
    host: Tensor
    copied: torch.cuda.Event

    def read(self) -> list[int] | None:
        return self.host.tolist() if self.copied.query() else None  # type: ignore[no-untyped-call]


def send(values: Tensor) -> Arrival:
    """Start copying integers [n] from a device of `SENDING` to the host."""
    # Only a copy to pinned memory lets the host run on.
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(values.device))
    return _DeviceArrival(host, copied)
