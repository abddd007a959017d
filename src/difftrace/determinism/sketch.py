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

from difftrace.core.module_trace import SKETCH_BUCKETS

# Signs are a product: of those of the place within a period, and one for each period and bucket.
_ROWS: Final = 120
_PERIOD: Final = _ROWS * SKETCH_BUCKETS
_STREAM: Final = 1024  # periods whose signs come from one stream

# Periods widened to float64 at a time, divisors of a stream: on a CPU what stays in the core's own cache, on an
# accelerator what keeps it busy.
_CPU_STEP: Final = 4
_ACCELERATOR_STEP: Final = 1024


def sketch(tensor: Tensor) -> Tensor:
    """Return the sketch of a dense tensor of floating point, float64 [69] on its device.

    The first 67 numbers are the sketch; then come the sum of squares and the number of values that are not finite,
    which count as 0 in all others. Nothing waits for the device. A tensor that is not contiguous is copied once.
    """
    with torch.no_grad():
        values = tensor.detach().reshape(-1)
        device = values.device
        step = _CPU_STEP if device.type == "cpu" else _ACCELERATOR_STEP
        places = _signs(0, _ROWS, device)
        found = torch.zeros(SKETCH_BUCKETS + 2, dtype=torch.float64, device=device)
        for index, part in enumerate(torch.split(values, step * _PERIOD)):
            wide = part.to(torch.float64)
            clean = wide.nan_to_num(0.0, 0.0, 0.0)
            found[-2] += clean.dot(clean)
            found[-1] += (~wide.isfinite()).sum()
            periods = -(-len(part) // _PERIOD)
            filled = torch.nn.functional.pad(clean, (0, periods * _PERIOD - len(part)))
            rows = (filled.view(periods, _ROWS, SKETCH_BUCKETS) * places).sum(1)
            first = index * step % _STREAM
            stream = _signs(1 + index * step // _STREAM, _STREAM, device)
            found[:-2] += (rows * stream[first : first + periods]).sum(0)
        return found


@lru_cache(maxsize=32)
def _signs(stream: int, rows: int, device: torch.device) -> Tensor:
    """Return pseudo-random signs, float64 [rows, 67], the same on every machine: another set for each stream."""
    count = rows * SKETCH_BUCKETS
    words = np.random.Philox(key=stream).random_raw(-(-count // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=count)
    return torch.from_numpy(bits * 2.0 - 1.0).reshape(rows, SKETCH_BUCKETS).to(device)
