"""Bytes between all ranks of torch.distributed's default group. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from difftrace.core.errors import RankError

T = TypeVar("T")


class Channel:
    """A group on the CPU beside the default one.

    The model's own collectives run in the default group, or others of the program's. A rank that raised amid them says
    so here without its bytes being taken for another rank's activations, and no accelerator is waited for. It has the
    default group's timeout.

    Opening one is a collective: every rank has to come, and waits for the others.
    """

    def __init__(self) -> None:
        """Open the channel; raises RankError where that fails or takes longer than the timeout."""
        if not dist.is_gloo_available():
            raise RankError("comparing ranks takes torch's gloo backend, which this build of torch lacks")
        self._group = _reached(lambda: dist.new_group(backend="gloo", timeout=_timeout()))

    def gather(self, data: bytes) -> list[bytes]:
        """Return the `data` of every rank in their order, equally long on all; RankError where one is missing."""
        mine = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        everyone = torch.empty(dist.get_world_size(), mine.numel(), dtype=torch.uint8)
        # Not all_gather, which is a ring in gloo: every rank would wake for every other one.
        at_first = list(everyone) if dist.get_rank() == 0 else None
        _reached(lambda: dist.gather(mine, at_first, dst=0, group=self._group))
        _reached(lambda: dist.broadcast(everyone, 0, group=self._group))
        return [bytes(one.numpy()) for one in everyone]

    def spread(self, data: bytes, source: int) -> bytes:
        """Return the `data` of rank `source`, of any length, on every rank; RankError where one is missing."""
        size = torch.tensor([len(data)])
        _reached(lambda: dist.broadcast(size, source, group=self._group))
        if not size:
            return b""
        own = bytearray(data) if dist.get_rank() == source else bytearray(int(size))
        sent = torch.frombuffer(own, dtype=torch.uint8)
        _reached(lambda: dist.broadcast(sent, source, group=self._group))
        return bytes(sent.numpy())


def _reached(call: Callable[[], T]) -> T:
    try:
        return call()
    except RuntimeError as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RankError(
            f"the ranks could not be compared: one ended, or did not come within the group's timeout ({first:.200})"
        ) from error


def _timeout() -> timedelta | None:
    """Return the default group's timeout; None, which is torch's own default, where it does not say."""
    world: Any = dist.group.WORLD
    for device in getattr(world, "_device_types", ()):
        try:
            timeout = world._get_backend(device).options._timeout
        except (AttributeError, RuntimeError):  # another torch, or no backend for this type
            continue
        if isinstance(timeout, timedelta):
            return timeout
    return None
