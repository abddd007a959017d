"""A golden module trace as a JSON document and back, the latter through its schema and further checks."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from difftrace.core import strict_json
from difftrace.core.errors import FormatError
from difftrace.core.file_format import check_format, json_bytes
from difftrace.core.module_trace import (
    SKETCH_BUCKETS,
    CallRecord,
    GoldenLayers,
    ModuleRecord,
    ModuleTrace,
    StateRecord,
    TensorRecord,
    TraceOrigin,
)
from difftrace.core.recording import ModelIdentity
from difftrace.core.schemas import violation
from difftrace.core.text import printable

FORMAT: Final = "difftrace-layers"
VERSION: Final = (0, 2)
READABLE: Final = ((0, 1), VERSION)


def document_of(layers: GoldenLayers) -> dict[str, Any]:
    """Return the document that schemas/layers.schema.json describes, without its digest."""
    return {
        "format": FORMAT,
        "version": ".".join(map(str, VERSION)),
        "origin": {**vars(layers.origin), "model": None if layers.origin.model is None else vars(layers.origin.model)},
        "trace": _trace_document(layers.trace),
    }


def digest_of(document: dict[str, Any]) -> str:
    """Return the digest of a document, in which its own does not count.

    Raises:
        FormatError: it holds what JSON cannot.
    """
    content = {key: value for key, value in document.items() if key != "digest"}
    return f"sha256:{hashlib.sha256(json_bytes(content)).hexdigest()}"


def layers_of(document: Any) -> GoldenLayers:
    """Return the trace in a whole document, digest included.

    Raises:
        FormatError: one line naming the field.
    """
    check_format(document, FORMAT, READABLE, "layers file")
    problem = violation("layers", document)
    if problem is not None:
        raise FormatError(problem)
    half = strict_json.unprintable_string(document)
    if half is not None:
        raise FormatError(f"{half}: holds half a surrogate pair, which is no character")
    if digest_of(document) != document["digest"]:
        raise FormatError("$.digest: does not match the content; the file was changed after it was made")
    origin = document["origin"]
    sequence = origin["sequence"]
    return GoldenLayers(
        TraceOrigin(
            baseline=origin["baseline"],
            step=int(origin["step"]),
            sequence=None if sequence is None else int(sequence),
            model=None if origin["model"] is None else ModelIdentity(**origin["model"]),
            environment=origin["environment"],
        ),
        _trace(document["trace"]),
    )


def _trace_document(trace: ModuleTrace) -> dict[str, Any]:
    return {
        "modules": [asdict(module) for module in trace.modules],
        "tensors": [{**vars(tensor), "sketch": _encoded(tensor.sketch)} for tensor in trace.tensors],
        "calls": [vars(call) for call in trace.calls],
        "draws_random_numbers": trace.draws_random_numbers,
    }


def _encoded(sketch: tuple[float, ...] | None) -> str | None:
    """Return a sketch in the smaller of both forms that holds it exactly."""
    if sketch is None:
        return None
    wide = np.array(sketch, dtype="<f8")
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f4")
    exact = np.array_equal(narrow.astype("<f8"), wide)
    return base64.b64encode((narrow if exact else wide).tobytes()).decode("ascii")


def _trace(document: dict[str, Any]) -> ModuleTrace:
    modules = tuple(_module(module) for module in document["modules"])
    tensors = tuple(_tensor(tensor, f"$.trace.tensors[{i}]") for i, tensor in enumerate(document["tensors"]))
    calls = tuple(_call(call) for call in document["calls"])
    _check_names(modules)
    _check_calls(calls, len(modules), len(tensors))
    return ModuleTrace(modules, tensors, calls, document["draws_random_numbers"])


def _module(document: dict[str, Any]) -> ModuleRecord:
    state = tuple(StateRecord(**{**one, "shape": _ints(one["shape"])}) for one in document["state"])
    return ModuleRecord(tuple(document["names"]), document["kind"], document["callable"], state)


def _check_names(modules: tuple[ModuleRecord, ...]) -> None:
    seen: set[str] = set()
    for index, module in enumerate(modules):
        for name in module.names:
            if name in seen:
                raise FormatError(
                    f"$.trace.modules[{index}].names: {printable(name)[:80]!r} is the name of two modules"
                )
            seen.add(name)
    if "" not in modules[0].names:
        raise FormatError("$.trace.modules[0].names: the first module is not the model itself")


def _tensor(document: dict[str, Any], path: str) -> TensorRecord:
    if (document["norm"] is None) != (document["sketch"] is None):
        raise FormatError(f"{path}: norm and sketch must both be there or neither")
    return TensorRecord(
        dtype=document["dtype"],
        shape=_ints(document["shape"]),
        digest=document["digest"],
        norm=None if document["norm"] is None else float(document["norm"]),
        non_finite=int(document["non_finite"]),
        sketch=None if document["sketch"] is None else _sketch(document["sketch"], f"{path}.sketch"),
    )


def _sketch(text: str, path: str) -> tuple[float, ...]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{path}: is not base64") from None
    width, rest = divmod(len(data), SKETCH_BUCKETS)
    if width not in (4, 8) or rest:
        raise FormatError(f"{path}: holds {len(data)} bytes, not {SKETCH_BUCKETS} numbers of 4 or 8")
    numbers = np.frombuffer(data, dtype=f"<f{width}")
    if not np.isfinite(numbers).all():
        raise FormatError(f"{path}: holds a number that is NaN or infinite")
    return tuple(numbers.tolist())


def _call(document: dict[str, Any]) -> CallRecord:
    parent = document["parent"]
    return CallRecord(
        module=int(document["module"]),
        parent=None if parent is None else int(parent),
        inputs=_ints(document["inputs"]),
        outputs=_ints(document["outputs"]),
    )


def _check_calls(calls: tuple[CallRecord, ...], modules: int, tensors: int) -> None:
    open_calls: list[int] = []
    for index, call in enumerate(calls):
        path = f"$.trace.calls[{index}]"
        if call.module >= modules:
            raise FormatError(f"{path}.module: is {call.module}, but there are {modules} modules")
        beyond = max((*call.inputs, *call.outputs), default=-1)
        if beyond >= tensors:
            raise FormatError(f"{path}: refers to tensor {beyond}, but there are {tensors}")
        while open_calls and open_calls[-1] != call.parent:
            open_calls.pop()
        if (call.parent is None) != (index == 0) or (index and not open_calls):
            raise FormatError(f"{path}.parent: is no call that was going on then")
        open_calls.append(index)
    if calls[0].module != 0:
        raise FormatError("$.trace.calls[0].module: the first call is not that of the model itself")


def _ints(values: list[Any]) -> tuple[int, ...]:
    # JSON Schema takes 5.0 for an integer.
    return tuple(map(int, values))
