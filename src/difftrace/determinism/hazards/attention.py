"""How attention shows among the operations that run, and which backend it then is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# The one step of attention's plain form that nothing else takes.
PLAIN_ATTENTION: Final = "_safe_softmax"
# Every backend torch can choose for scaled_dot_product_attention, by the operation that then runs.
ATTENTION_BACKENDS: Final[Mapping[str, str]] = {
    PLAIN_ATTENTION: "math",
    "_scaled_dot_product_attention_math_for_mps": "math",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_scaled_dot_product_fused_attention_overrideable": "overrideable",
}
