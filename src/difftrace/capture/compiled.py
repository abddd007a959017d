"""Models whose calls pass by their `forward`, so that wrapping it would record nothing, or not all."""

from __future__ import annotations

from typing import Any

import torch

_ADVICE = "record it before it is compiled, or give rec.step(before, after) the canvases with engine='steps'"


def why_not_seen(target: Any) -> str | None:
    """Return why a wrapper of `target.forward` would not be called, None where it would."""
    if isinstance(target, torch.jit.ScriptModule):
        return "it is a TorchScript module, which runs without Python; record the module that it was made of"
    if "_orig_mod" in getattr(target, "_modules", {}):
        return f"it was compiled by torch.compile, which runs without Python in between; {_ADVICE}"
    if getattr(target, "_compiled_call_impl", None) is not None:
        return f"it was compiled by its method compile(), so that calls pass by its forward; {_ADVICE}"
    if any(hasattr(part, "_torchdynamo_orig_callable") for part in _forwards(target)):
        return f"its forward was compiled by torch.compile; {_ADVICE}"
    return None


def _forwards(target: Any) -> list[Any]:
    """Return its `forward` with all that it wraps."""
    found: list[Any] = [getattr(target, "forward", None)]
    while hasattr(found[-1], "__wrapped__") and len(found) < 20:
        found.append(found[-1].__wrapped__)
    return found
