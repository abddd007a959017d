"""A numeric canary: small fixed computations whose bits show what no list of settings does.

Instruction sets, libraries and thread counts change the last bits of sums, and several of the switches behind them
cannot be read back. Two machines compute alike, as far as these probes reach, where their canaries agree.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_TAG: Final = b"difftrace-canary-2"

# A run computes in one of these. Weights stored otherwise (quantised) are computed in something that only their code
# knows; what is known of the machine is then fp32.
_COMPUTED: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

Numbers = Callable[..., Tensor]


def canary(device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> str:
    """Return `sha256:` over the result bits of what a denoising run computes, on `device` in `dtype` (None: fp32).

    The probes are products of several shapes, attention with and without a padding mask, rotary embedding, norm,
    softmax, activations, long sums, and the float64 of Gumbel noise. They run under the settings in force, thread count
    and attention backend included, draw no random numbers, and change nothing. A probe that these settings refuse (an
    attention backend that cannot run, an operation without a deterministic form) counts as refused. Takes milliseconds
    on a CPU. On an accelerator it waits for the device.
    """
    chosen = dtype if dtype in _COMPUTED else torch.float32
    total = hashlib.sha256(_TAG)

    def numbers(*shape: int, dtype: torch.dtype = chosen) -> Tensor:
        return _numbers(shape).to(device=device, dtype=dtype)

    with torch.no_grad(), warnings.catch_warnings():
        # What torch has to say of a backend that does not fit has been said where the run used it.
        warnings.simplefilter("ignore")
        for probe in _PROBES:
            total.update(_result(probe, numbers))
    return f"sha256:{total.hexdigest()}"


def _result(probe: Callable[[Numbers], Tensor], numbers: Numbers) -> bytes:
    try:
        result = probe(numbers)
        data = result.contiguous().view(torch.uint8).cpu().numpy().tobytes()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError):  # the latter where a device does not have float64
        return f"{probe.__name__} refused\n".encode()
    return f"{probe.__name__} {result.dtype} {tuple(result.shape)}\n".encode() + data


# Odd sizes leave remainders for every vector width; lengths of some thousand are split over threads, or over the
# units of a device.


def _product(numbers: Numbers) -> Tensor:
    left, right = _cancelling(numbers, 65, 515, 67)
    return left @ right


def _layer(numbers: Numbers) -> Tensor:
    """Return what a model's linear layer gives: its weight lies transposed, its rows are a short canvas."""
    left, right = _cancelling(numbers, 37, 128, 96)
    return functional.linear(left, right.T.contiguous())


def _row(numbers: Numbers) -> Tensor:
    left, right = _cancelling(numbers, 1, 515, 67)
    return functional.linear(left, right.T.contiguous())


def _long(numbers: Numbers) -> Tensor:
    left, right = _cancelling(numbers, 3, 4099, 5)
    return left @ right


def _biased(numbers: Numbers) -> Tensor:
    return functional.linear(numbers(19, 131), numbers(45, 131), numbers(45))


def _batched(numbers: Numbers) -> Tensor:
    left, right = _cancelling(numbers, 33, 65, 17)
    return torch.stack((left, left * 3)) @ torch.stack((right, right))


def _attention(numbers: Numbers) -> Tensor:
    heads = numbers(2, 3, 37, 24)
    return functional.scaled_dot_product_attention(heads, heads.flip(2), heads.roll(1, 3))


def _masked_attention(numbers: Numbers) -> Tensor:
    heads = numbers(2, 3, 41, 32)
    bias = heads.new_zeros(2, 1, 41, 41)
    bias[1, :, :, :7] = torch.finfo(bias.dtype).min
    return functional.scaled_dot_product_attention(heads, heads.flip(2), heads.roll(1, 3), attn_mask=bias)


def _norm(numbers: Numbers) -> Tensor:
    wide = numbers(9, 515, dtype=torch.float32)
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)


def _rotary(numbers: Numbers) -> Tensor:
    exponents = numbers(1, dtype=torch.float32).new_tensor(range(0, 64, 2)) / 64
    angles = torch.outer(exponents.new_tensor(range(0, 4096, 13)), 1.0 / (500000.0**exponents))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _softmax(numbers: Numbers) -> Tensor:
    return torch.softmax(numbers(3, 5003) * 9, dim=-1)


def _log_sum_exp(numbers: Numbers) -> Tensor:
    return torch.logsumexp(numbers(5, 2053, dtype=torch.float32) * 9, dim=-1)


def _activations(numbers: Numbers) -> Tensor:
    given = numbers(2053) * 8
    return torch.stack((functional.silu(given), functional.gelu(given), torch.tanh(given), torch.sigmoid(given)))


def _transcendental(numbers: Numbers) -> Tensor:
    given = numbers(2053, dtype=torch.float32)
    return torch.stack((torch.exp(given * 20), torch.log(given.abs() + 1e-4), torch.log1p(given.abs())))


def _sum(numbers: Numbers) -> Tensor:
    return numbers(100_003, dtype=torch.float32).sum(dim=0, keepdim=True)


def _gumbel(numbers: Numbers) -> Tensor:
    given = numbers(2053, dtype=torch.float64)
    return (given * 9).exp() / (-torch.log(given.abs() + 1e-3)) ** 0.7


def _tied(numbers: Numbers) -> Tensor:
    """Return which of several largest numbers a device takes for the largest."""
    return (numbers(7, 515) * 4).round().argmax(dim=-1)


def _cancelling(numbers: Numbers, rows: int, length: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return [rows, 2 length] and [2 length, columns] whose product is 0 but for rounding.

    In bf16 and fp16 a result is too coarse to show in which order fp32 was summed; what is left of nothing is not. The
    factor keeps that above fp16's smallest numbers.
    """
    left, right = numbers(rows, length) * 8, numbers(length, columns) * 8
    return torch.cat((left, left.roll(5, 1)), dim=1), torch.cat((right, -right.roll(5, 0)))


_PROBES: Final = (
    _product,
    _layer,
    _row,
    _long,
    _biased,
    _batched,
    _attention,
    _masked_attention,
    _norm,
    _rotary,
    _softmax,
    _log_sum_exp,
    _activations,
    _transcendental,
    _sum,
    _gumbel,
    _tied,
)


def _numbers(shape: tuple[int, ...]) -> Tensor:
    """Fill a shape with fp32 numbers in [-1, 1] without a random generator.

    The divisor is a prime, so that the quotients (correctly rounded everywhere) fill the mantissa and their sums round.
    """
    count = torch.Size(shape).numel()
    scrambled = (torch.arange(count, dtype=torch.int64, device="cpu") * 40503 + 12345) % 65521
    return ((scrambled - 32760).to(torch.float32) / 32771).reshape(shape)
