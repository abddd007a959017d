"""Operations that leave a choice open: which of equal elements they take, or which kernel torch runs."""

from __future__ import annotations

from typing import Final

from difftrace.determinism.hazards import conditions as when
from difftrace.determinism.hazards.attention import ATTENTION_BACKENDS
from difftrace.determinism.hazards.row import CUDA, DETERMINISTIC, Hazard

_ATTENTION_WHY: Final = "torch picks the attention kernel by device, dtype, shapes and version; each rounds differently"
_ATTENTION_FIX: Final = (
    "run it under difftrace.enforce(), or torch.nn.attention.sdpa_kernel(SDPBackend.MATH), which leave one backend"
)

TIES: Final = (
    Hazard(
        "tie-unspecified",
        ("topk",),
        why="which of equal elements are taken, and in which order, is left open and differs between devices",
        fix="torch.sort(x, descending=True, stable=True) and keep the first k",
        source="torch.topk; pytorch#127196",
        condition=when.unstable,
    ),
    Hazard(
        "tie-unspecified",
        ("sort",),
        why="the order of equal elements is left open and differs between devices",
        fix="pass stable=True",
        source="torch.sort",
        condition=when.unstable,
    ),
    Hazard(
        "tie-unspecified",
        ("median", "nanmedian"),
        why="which of equal elements the indices point to is left open and differs between devices",
        fix="torch.sort(x, stable=True) and take the middle; on CUDA difftrace.enforce() raises for these indices",
        source=f"torch.median; {DETERMINISTIC}",
        condition=when.with_indices,
    ),
    Hazard(
        "tie-unspecified",
        ("kthvalue", "mode"),
        why="which of equal elements the indices point to is left open; on CUDA it may change from run to run",
        fix="use the values alone, or torch.sort(x, stable=True)",
        source="torch.kthvalue, torch.mode",
    ),
)

CHOSEN: Final = (
    Hazard(
        "backend-chosen",
        (*ATTENTION_BACKENDS, "scaled_dot_product_attention", "_triton_scaled_dot_attention"),
        why=_ATTENTION_WHY,
        fix=_ATTENTION_FIX,
        source="torch.nn.functional.scaled_dot_product_attention",
        settled_by=("one-attention-backend",),
        shown_as="scaled_dot_product_attention",
    ),
    Hazard(
        "backend-chosen",
        ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
        why=f"this fused fast path runs attention inside, where {_ATTENTION_WHY}",
        fix=f"{_ATTENTION_FIX}; torch.backends.mha.set_fastpath_enabled(False) takes the same path in every mode",
        source="torch.nn.TransformerEncoderLayer",
        settled_by=("one-attention-backend",),
    ),
    Hazard(
        "backend-chosen",
        ("flex_attention",),
        why="its kernel is generated and tuned by the compiler where there is one",
        fix="run it uncompiled (TORCH_COMPILE_DISABLE=1), or call scaled_dot_product_attention with a mask",
        source="torch.nn.attention.flex_attention",
    ),
    Hazard(
        "backend-chosen",
        (
            "_c10d_functional::all_reduce",
            "_c10d_functional::all_reduce_",
            "_c10d_functional::reduce_scatter_tensor",
            "c10d::_reduce_scatter_base_",
            "c10d::allreduce_",
            "c10d::reduce_",
            "c10d::reduce_scatter_",
        ),
        why="NCCL and RCCL choose the order of the sum from size and topology",
        fix="set NCCL_ALGO=Ring and NCCL_PROTO=Simple, and keep the number of ranks",
        source="the NCCL user guide, environment variables",
        devices=CUDA,
    ),
)
