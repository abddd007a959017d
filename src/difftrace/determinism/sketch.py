"""A tensor's values reduced to a few numbers from which its distance to another tensor can be estimated.

A count sketch (Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", 2002) with element i in bucket
i mod 67 and pseudo-random signs: the sum of squares of the difference of two sketches is an unbiased estimate of that
of the two tensors, as in the tug-of-war sketch (Alon, Matias, Szegedy, 1996). Its relative standard deviation is
√(2/67), 17 %, where the differences are spread, at most √2 where all fall into one bucket, and nothing for a single
one. In float64, so that what the sums themselves round is far below any difference between two runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from difftrace.core.module_trace import SKETCH_BUCKETS

# Rows of one element for each bucket. Every element of so many rows has a sign of its own; what follows has the same
# signs again, times one for each bucket and repetition.
_ROWS: Final = 1 << 16

# Rows widened to float64 at a time, divisors of the above: on a CPU what stays in the core's own cache, on an
# accelerator what keeps it busy.
_CPU_STEP: Final = 1 << 9
_ACCELERATOR_STEP: Final = 1 << 16


def sketch(tensor: Tensor) -> Tensor:
    """Return the sketch of a dense tensor of floating point, float64 [69] on its device.

    The first 67 numbers are the sketch; then come the sum of squares and the number of values that are not finite,
    which count as 0 in all others. Nothing waits for the device. A tensor that is not contiguous is copied once.
    """
    with torch.no_grad():
        values = tensor.detach().reshape(-1)
        step = _CPU_STEP if values.device.type == "cpu" else _ACCELERATOR_STEP
        signs = _signs(0, _ROWS, values.device)
        found = torch.zeros(SKETCH_BUCKETS + 2, dtype=torch.float64, device=values.device)
        for index, part in enumerate(torch.split(values, step * SKETCH_BUCKETS)):
            wide = part.to(torch.float64)
            clean = wide.nan_to_num(0.0, 0.0, 0.0)
            found[-2] += clean.dot(clean)
            found[-1] += wide.ne(clean).sum()
            rows = -(-len(part) // SKETCH_BUCKETS)
            filled = functional.pad(clean, (0, rows * SKETCH_BUCKETS - len(part))).view(rows, SKETCH_BUCKETS)
            repetition, first = divmod(index * step, _ROWS)
            flips = _signs(1 + repetition, 1, values.device)[0]
            found[:-2] += (filled * signs[first : first + rows]).sum(0) * flips
        return found


@lru_cache(maxsize=128)
def _signs(stream: int, rows: int, device: torch.device) -> Tensor:
    """Return pseudo-random signs, int8 [rows, 67], the same on every machine: others for each stream."""
    count = rows * SKETCH_BUCKETS
    words = np.random.Philox(key=stream).random_raw(-(-count // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=count)
    return torch.from_numpy(2 * bits.view(np.int8) - 1).reshape(rows, SKETCH_BUCKETS).to(device)
