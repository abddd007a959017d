"""How a recording is to be read."""

from __future__ import annotations

from dataclasses import dataclass

from difftrace.capture.adapter import Adapter


@dataclass(frozen=True)
class Reading:
    """How a tape is to be read: `rewrites` and `prompt_length` None leave it to the adapter and the canvases."""

    adapter: Adapter
    mask_id: int | None
    rewrites: bool
    prompt_length: int | None = None
