"""How many canvases a model scores at once: as many as pay, no more than memory holds."""

from __future__ import annotations

from typing import Final

import torch

from difftrace.models import LoadedModel
from difftrace.verification.second_copy import free_memory

# Canvas positions in one forward pass. More gain nothing: on a CPU intermediate results leave its caches (measured with
# the reference model: 300 to 700 are fastest), on an accelerator matrix products are bound by arithmetic long before.
_POSITIONS_CPU: Final = 512
_POSITIONS: Final = 8192

# What of the free memory is used, and what is taken for free where nobody says.
_SHARE: Final = 0.5
_UNKNOWN_FREE: Final = 4 << 30


def batch_size(loaded: LoadedModel, rows: int, length: int, *, noisy: bool) -> int:
    """Return how many canvases to score at once, each of `rows` rows of `length` positions; at least 1.

    `noisy` says whether tokens are drawn, which takes several float64 numbers for every logit.
    """
    positions = _POSITIONS_CPU if loaded.device.type == "cpu" else _POSITIONS
    needed = rows * _bytes_per_row(loaded, length, noisy)
    return max(1, min(positions // (rows * length), int(_SHARE * _free(loaded.device)) // needed))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory was not enough for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator and Metal's have no class of their own for it.
    said = str(error) if isinstance(error, RuntimeError) else ""
    return "DefaultCPUAllocator" in said or "out of memory" in said


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps for later allocations, so that smaller ones fit in between."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _bytes_per_row(loaded: LoadedModel, length: int, noisy: bool) -> int:
    """Estimate what one row takes while a layer runs, and while its logits are decided on."""
    config = loaded.config
    size = loaded.dtype.itemsize
    # Logits, those guided or forbidden, probabilities, one copy; then numbers, noise and what they become.
    logits = config.embedding_size * (4 * size + (6 * 8 if noisy else 0))
    # Norms, rotations and plain attention are computed in float32.
    wide = max(size, 4)
    hidden = wide * (8 * config.d_model + 3 * config.mlp_hidden_size)
    attention = wide * 3 * config.n_heads * length
    return length * (logits + hidden + attention)


def _free(device: torch.device) -> int:
    if device.type == "cpu":
        known = free_memory()
        return _UNKNOWN_FREE if known is None else known
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _UNKNOWN_FREE
