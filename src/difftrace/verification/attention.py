"""The fused backends of scaled_dot_product_attention, and which of them run a model here."""

from __future__ import annotations

import warnings
from typing import Final

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from difftrace.models import LoadedModel

BACKENDS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def runs_here(loaded: LoadedModel, backend: SDPBackend) -> bool:
    """Return whether torch runs `backend` for heads like the model's.

    On some devices torch computes by matrix products whatever is asked for, so its choice counts too.
    """
    config = loaded.config
    heads = torch.zeros(1, config.n_heads, 16, config.head_dim, dtype=loaded.dtype, device=loaded.device)
    try:
        # Where a kernel does not fit torch warns about each reason.
        with warnings.catch_warnings(), sdpa_kernel(backend):
            warnings.simplefilter("ignore")
            functional.scaled_dot_product_attention(heads, heads, heads)
            return torch._fused_sdp_choice(heads, heads, heads) == backend.value
    except RuntimeError:
        return False
