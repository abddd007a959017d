"""ZHZisZZ/dllm (dllm/core/samplers): its MDLM and block diffusion samplers.

With `return_dict=True` they return histories, which are the trajectory. Else the calls are: those of block diffusion
that fill the cache with what lies before a block show no mask and are no steps, and guidance calls the model twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from difftrace.capture.adapter import Forward, LoopAdapter
from difftrace.capture.canvases import UNSEEN


class DLLMAdapter(LoopAdapter):
    """Reads both samplers; record the model that the sampler holds."""

    name = "dllm"
    rewrites = False
    by_probability = True

    def matches(self, target: Any) -> bool:
        """Only by name: its models are anybody's."""
        return False

    def decides(self, forwards: Sequence[Forward], mask_id: int | None) -> Sequence[bool]:
        """Calls with masks, of equal ones in a row the first: a step that commits nothing makes no call."""
        masked = [mask_id is None or bool((forward.ids == mask_id).any()) for forward in forwards]
        again = [False, *(_same(one, other) for one, other in pairwise(forwards))]
        return [shows and not repeats for shows, repeats in zip(masked, again, strict=True)]

    def canvases(self, output: Any) -> Sequence[Any] | None:
        """Return the histories; a canvas that grows block by block was not seen where it did not reach yet."""
        histories = getattr(output, "histories", None)
        if not histories:
            return None
        arrays = [np.asarray(canvas.detach().cpu()) for canvas in histories]
        width = arrays[-1].shape[1]
        return [np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=UNSEEN) for one in arrays]


def _same(one: Forward, other: Forward) -> bool:
    return one.offset == other.offset and np.array_equal(one.ids, other.ids)


ADAPTER = DLLMAdapter()
