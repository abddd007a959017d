"""Dream (Dream-org/Dream-v0, generation_utils.py): `diffusion_generate`, with logits shifted by one position.

The forwards show every canvas, what a hook of the caller's wrote included: that belongs to the step before. A committed
token stays, unless such a hook changes it: then record with rewrites=True.
"""

from __future__ import annotations

from typing import Any

from difftrace.capture.adapter import LoopAdapter


class DreamAdapter(LoopAdapter):
    """Reads it: row p of the logits scores position p + 1."""

    name = "dream"
    rewrites = False
    shift = 1

    def matches(self, target: Any) -> bool:
        """A published checkpoint."""
        config = getattr(target, "config", None)
        return type(target).__name__ == "DreamModel" or getattr(config, "model_type", None) == "Dream"


ADAPTER = DreamAdapter()
