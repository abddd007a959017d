"""A tensor's bits reduced to a 512th on the device they lie on, to the same integers everywhere.

The bytes of the tensor in row-major order, filled up with zeros to whole 32-bit words, are cut into blocks of 4096
words. A block w gives four sums Σ k[lane, i]·w[i] modulo 2^64 with fixed pseudo-random 64-bit keys k: multilinear
hashing (Lemire and Kaser, "Strongly universal string hashing is fast", The Computer Journal 57, 2014). Two different
blocks agree in one sum for at most one in 2^33 choices of its keys, in all four for one in 2^132. Integer sums do not
depend on their order, hence neither on device, thread count, memory layout nor on how much is done at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LANES: Final = 4
_WORDS: Final = 4096
_BLOCK: Final = 4 * _WORDS  # bytes

# At most this much of a tensor is copied at a time, and only of one that is not contiguous.
_PIECE: Final = 64 << 20
# On a CPU a step's intermediate results stay in the core's own cache and below the size from which torch spreads an
# operation over threads, whose meeting costs more than it gains. On accelerators they keep every unit busy.
_CPU_STEP: Final = 6
_ACCELERATOR_STEP: Final = 1024

_INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def block_sums(tensor: Tensor) -> Tensor:
    """Return the sums of each block, int64 [blocks, 4] on the tensor's device; no block for an empty tensor.

    `tensor` is dense and strided, of any dtype; neither gradient nor content is touched. Takes memory for one piece
    of at most 64 MiB (and a while for two) if the tensor is not contiguous, 64 MiB for intermediate results on an
    accelerator, and for the result.
    """
    with torch.no_grad():
        keys = torch.from_numpy(_keys()).to(tensor.device)
        blocks = -(-tensor.numel() * tensor.element_size() // _BLOCK)
        sums = torch.empty((LANES, blocks), dtype=torch.int64, device=tensor.device)
        done = 0
        for words in _aligned(tensor.detach()):
            count = len(words) // _WORDS
            _sum_into(sums[:, done : done + count], words.view(count, _WORDS), keys)
            done += count
        return sums.T


def _sum_into(sums: Tensor, blocks: Tensor, keys: Tensor) -> None:
    """Write the sums of int32 `blocks` [n, words] into `sums` [lanes, n], some blocks at a time."""
    step = min(len(blocks), _CPU_STEP if blocks.device.type == "cpu" else _ACCELERATOR_STEP)
    # Used again for every step: allocated anew among results that stay, they would leave holes as large as the tensor.
    wide, products = (torch.empty((step, _WORDS), dtype=torch.int64, device=blocks.device) for _ in range(2))
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step]
        wide[: len(part)].copy_(part)
        for lane, key in enumerate(keys):
            torch.mul(wide[: len(part)], key, out=products[: len(part)])
            torch.sum(products[: len(part)], 1, out=sums[lane, start : start + len(part)])


@lru_cache(maxsize=1)
def _keys() -> NDArray[np.int64]:
    """Return the keys [lanes, words]: the first outputs of SplitMix64 from seed 0 (Steele, Lea, Flood, 2014)."""
    state = np.arange(1, LANES * _WORDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    keys: NDArray[np.int64] = (state ^ (state >> np.uint64(31))).view(np.int64)
    return keys.reshape(LANES, _WORDS)


def _aligned(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensor's bytes as int32 words, each time whole blocks of them."""
    rest = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    for piece in _pieces(tensor):
        data = torch.cat([rest, piece]) if len(rest) else piece
        whole = len(data) - len(data) % _BLOCK
        if whole:
            yield _as_words(data[:whole])
        rest = data[whole:]
    if len(rest):
        yield _as_words(torch.cat([rest, rest.new_zeros(_BLOCK - len(rest))]))


def _as_words(data: Tensor) -> Tensor:
    # A view needs memory aligned for the wider type, which a slice of narrow values need not have.
    misaligned = data.storage_offset() % 4 or data.data_ptr() % 4
    return (data.clone() if misaligned else data).view(torch.int32)


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensor's bytes in row-major order, uint8 [n], views where it is contiguous, else small copies."""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return
    if size <= _PIECE:
        yield _bytes(tensor)
    elif tensor.is_contiguous() and tensor.dim() > 1:
        yield from _pieces(tensor.view(-1))
    else:
        row = size // len(tensor)
        for part in torch.split(tensor, max(1, _PIECE // row)):
            yield from _pieces(part[0] if len(part) == 1 else part)


def _bytes(tensor: Tensor) -> Tensor:
    # Conjugation and negation may be pending; viewing complex numbers as pairs and all as integers keeps every bit
    # and spares each dtype a copying kernel of its own.
    tensor = tensor.resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    integers = tensor.view(_INTEGERS[tensor.element_size()]).contiguous()
    # Not view(-1): a single element keeps whatever stride it has.
    return integers.as_strided((integers.numel(),), (1,)).view(torch.uint8)
