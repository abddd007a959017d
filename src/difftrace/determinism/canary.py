"""A numeric canary: small fixed computations whose bits show what no list of settings does.

Instruction sets, BLAS builds and thread counts change the last bits of sums, and several of the switches behind
them cannot be read back. Two machines compute alike, as far as these probes reach, where their canaries agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional


def canary(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> str:
    """Return `sha256:` over the result bits of products, attention, norms, softmax and sums on `device` in `dtype`.

    Runs under the settings in force, thread count included. Takes milliseconds on a CPU.
    """
    total = hashlib.sha256(b"difftrace-canary-1")
    with torch.no_grad():
        for result in _probes(torch.device(device), dtype):
            # Widening bf16 and fp16 to fp32 is exact and gives numpy a dtype it knows.
            total.update(result.to("cpu", torch.float32).contiguous().numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def _probes(device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
    # Odd sizes leave remainders for every vector width; lengths of some thousand are split over threads.
    left, right = _numbers((129, 515), device, dtype), _numbers((515, 67), device, dtype)
    yield left @ right
    yield functional.linear(left[:1], right.T.contiguous())
    heads = _numbers((2, 3, 37, 24), device, dtype)
    yield functional.scaled_dot_product_attention(heads, heads.flip(2), heads.roll(1, 3))
    yield torch.softmax(left * 9, dim=-1)
    yield torch.rsqrt(left.float().pow(2).mean(-1) + 1e-5)
    yield functional.silu(left)
    yield _numbers((100_003,), device, dtype).float().sum()[None]
    yield torch.logsumexp(left.float() * 9, dim=-1)


def _numbers(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Fill a shape with numbers in [-1, 1] without a random generator.

    The divisor is a prime, so that the quotients (correctly rounded everywhere) fill the mantissa and their sums round.
    """
    count = torch.Size(shape).numel()
    scrambled = (torch.arange(count, dtype=torch.int64) * 40503 + 12345) % 65521
    return ((scrambled - 32760).to(torch.float32) / 32771).reshape(shape).to(device=device, dtype=dtype)
