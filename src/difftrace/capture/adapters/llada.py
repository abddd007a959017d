"""The published loop of LLaDA (ML-GSAI/LLaDA, generate.py), and loops that call the model as it does.

One call a step with the whole canvas, doubled under guidance; a committed token stays.
"""

from __future__ import annotations

from typing import Any

from difftrace.capture.adapter import LoopAdapter


class LLaDAAdapter(LoopAdapter):
    """Reads the published loop."""

    name = "llada"
    rewrites = False
    by_probability = True

    def matches(self, target: Any) -> bool:
        """A published checkpoint (`LLaDAModelLM`) or this package's model."""
        config = getattr(target, "config", None)
        return getattr(config, "model_type", None) == "llada" or type(target).__name__ in ("LLaDAModelLM", "LLaDAModel")


ADAPTER = LLaDAAdapter()
