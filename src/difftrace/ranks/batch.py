"""A batch of trajectories as bytes, for a rank that has to see what another one decided."""

from __future__ import annotations

from collections.abc import Sequence

from difftrace.core.errors import FormatError
from difftrace.core.trajectory import Trajectory

_LENGTH = 8


def pack(trajectories: Sequence[Trajectory]) -> bytes:
    """Return each trajectory's encoding behind its length, 8 bytes, little-endian."""
    encoded = [one.to_bytes() for one in trajectories]
    return b"".join(len(one).to_bytes(_LENGTH, "little") + one for one in encoded)


def unpack(data: bytes) -> list[Trajectory]:
    """Return the trajectories that `pack` was given.

    Raises:
        FormatError: `data` is something else.
    """
    found, start = [], 0
    while start < len(data):
        behind = start + _LENGTH
        end = behind + int.from_bytes(data[start:behind], "little")
        if end > len(data):
            raise FormatError("a batch of trajectories from another rank ends too early")
        found.append(Trajectory.from_bytes(data[behind:end]))
        start = end
    return found
