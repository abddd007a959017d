"""Fast-dLLM (NVlabs/Fast-dLLM, llada/generate.py): LLaDA with no cache, a prefix cache or a dual cache.

With a cache, the call that fills it at the start of a block is a step like any other. With a threshold a step commits
as many tokens as are sure enough. A committed token stays.
"""

from __future__ import annotations

import inspect
from typing import Any

from difftrace.capture.adapter import LoopAdapter


class FastDLLMAdapter(LoopAdapter):
    """Reads its three loops."""

    name = "fast_dllm"
    rewrites = False
    by_probability = True

    def matches(self, target: Any) -> bool:
        """Its modelling file's class, which differs from the published one by `replace_position`."""
        if type(target).__name__ != "LLaDAModelLM":
            return False
        try:
            return "replace_position" in inspect.signature(type(target).forward).parameters
        except (TypeError, ValueError):
            return False


ADAPTER = FastDLLMAdapter()
