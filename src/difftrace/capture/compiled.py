"""Models whose calls pass by their `forward`, so that wrapping it would record nothing, or not all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch

from difftrace.core.errors import CaptureError

# Follows the name of a model.
CALLED_COMPILED: Final = (
    "is called from compiled code (torch.compile), which runs uncompiled while it is recorded and might decide "
    "otherwise: record the loop as it was before it was compiled (generate of transformers: disable_compile=True)"
)

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


def is_of_our_refusal(error: BaseException) -> bool:
    """Say whether torch's compiler raised `error` because the model's calls are refused within compiled code.

    What is raised while it reads code comes out as an error of its own where nothing else may run (fullgraph=True).
    """
    parts = [part for part in _chain(error) if type(part).__module__.startswith("torch._dynamo")]
    return any(CaptureError.__name__ in str(part) for part in parts)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _forwards(target: Any) -> list[Any]:
    """Return its `forward` with all that it wraps."""
    found: list[Any] = [getattr(target, "forward", None)]
    while hasattr(found[-1], "__wrapped__") and len(found) < 20:
        found.append(found[-1].__wrapped__)
    return found
