"""Content digests of tensors, modules and whole training states: equal content, equal digest, on every device."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from difftrace.core.errors import DigestError
from difftrace.determinism.block_sums import block_sums

_TAG: Final = "difftrace-digest-1"

# Digests of tensors already seen in the state at hand, so that tied weights are read once.
_Seen = dict[tuple[object, ...], bytes]


def digest(content: object) -> str:
    """Return the content digest `sha256:…` of a tensor, a module, or a nested state of them.

    A tensor's digest is decided by dtype, shape and the bits of its elements in order: it separates -0.0 from 0.0,
    NaNs by payload, permutations and equal bytes of another type; device, strides, gradient flags and thread count
    do not matter. Large tensors are reduced where they lie (`difftrace.determinism.block_sums`), in pieces of at
    most 64 MiB; what reaches the host is a 512th. It finds accidents, not adversaries: two tensors that happen to
    differ get different digests (they share one with a probability below 2^-128), but the sums that are
    hashed are linear, and someone who tries can construct two tensors with one digest. Bytes are taken as they lie
    in memory, so that the digest is that of little-endian machines.

    A module's digest is that of the mapping of names to all its state: what `state_dict()` holds and the buffers that
    it leaves out. So it equals the digest of `state_dict()` where every buffer is persistent. Order does not matter;
    tied tensors count under each of their names, so that untying equal copies changes nothing.

    Mappings (keyed by str, int, float, bool or None), lists and tuples (not told apart), None, bool, int, float,
    str and bytes nest at will; True, 1 and 1.0 differ.

    Raises:
        DigestError: a value of another type, or a tensor without dense content of its own (meta or fake,
            uninitialised, sparse, nested, quantised, distributed); the message says where it is.
    """
    return f"sha256:{_digest(content, '', {}).hex()}"


def checkpoint_digest(model: nn.Module, /, **state: object) -> str:
    """Return one digest for a training loop's state: `checkpoint_digest(model, optimizer=optimizer, step=step)`.

    Without `state` it is `digest(model)`. Each value of `state` is anything `digest` takes, or an object with a
    `state_dict()` (optimizer, scheduler, scaler), which stands for its state. Raises DigestError like `digest`.
    """
    if not state:
        return digest(model)
    return digest([model, {name: _state_of(value) for name, value in state.items()}])


def digest_of_sums(dtype: torch.dtype, shape: Sequence[int], sums: npt.NDArray[np.int64]) -> str:
    """Return what `digest` gives for a tensor of that dtype and shape from its `block_sums`, [blocks, 4].

    For those who take the sums of many tensors and bring them to the host at once.
    """
    return f"sha256:{_tensor_hash(dtype, shape, sums).hex()}"


def _state_of(value: object) -> object:
    if isinstance(value, nn.Module):
        return value
    state_dict = getattr(value, "state_dict", None)
    return state_dict() if callable(state_dict) else value


def _digest(value: object, where: str, seen: _Seen) -> bytes:
    match value:
        case Tensor():
            return _tensor(value, where, seen)
        case nn.Module():
            return _mapping(_module_state(value), where, seen)
        case Mapping():
            return _mapping(value, where, seen)
        case list() | tuple():
            items = [_digest(item, f"{where}[{index}]", seen) for index, item in enumerate(value)]
            return _hash("list", len(items), *items)
        case _:
            return _hash(*_scalar(value, where))


def _module_state(module: nn.Module) -> dict[object, object]:
    buffers: dict[object, object] = dict(module.named_buffers(remove_duplicate=False))
    return buffers | module.state_dict()


def _mapping(mapping: Mapping[object, object], where: str, seen: _Seen) -> bytes:
    pairs = sorted(
        (_hash(*_scalar(key, f"{where} (a key)")), _digest(value, f"{where}[{key!r}]", seen))
        for key, value in mapping.items()
    )
    return _hash("mapping", len(pairs), *(part for pair in pairs for part in pair))


def _scalar(value: object, where: str) -> tuple[str, object, bytes]:
    """Return type name, description and bytes that together tell a plain value from every other."""
    match value:
        case None | bool():
            return "constant", str(value), b""
        case int():
            return "int", hex(value), b""
        case float():
            return "float", None, struct.pack("<d", value)
        case str():
            return "str", None, value.encode("utf-8", "surrogatepass")
        case bytes() | bytearray():
            return "bytes", None, bytes(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise DigestError(f"{_at(where)}a {name} has no content digest; leave it out or turn it into a tensor")


def _tensor(tensor: Tensor, where: str, seen: _Seen) -> bytes:
    problem = without_content(tensor)
    if problem:
        raise DigestError(f"{_at(where)}a tensor {problem}")
    memory = (tensor.device, tensor.data_ptr(), tensor.stride(), tensor.is_conj(), tensor.is_neg())
    key = (*memory, tensor.dtype, tensor.shape)
    if key not in seen:
        seen[key] = _tensor_hash(tensor.dtype, tensor.shape, block_sums(tensor).cpu().numpy())
    return seen[key]


def _tensor_hash(dtype: torch.dtype, shape: Sequence[int], sums: npt.NDArray[np.int64]) -> bytes:
    description = (str(dtype).removeprefix("torch."), list(shape))
    return _hash("tensor", description, sums.astype("<i8", copy=False).tobytes())


def without_content(tensor: Tensor) -> str | None:
    """Return what keeps a tensor from having dense content of its own and what to do, or None."""
    if nn.parameter.is_lazy(tensor):
        return "is not initialised yet; run the module once before"
    # FakeTensor, DTensor and their like: what they hold themselves is nothing or a part.
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"of class {type(tensor).__qualname__} stands for others; digest those it is made of"
    if tensor.is_meta:
        return "on the meta device has no content; load the weights (or undo their offloading) before"
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        return "that is sparse, nested or quantised has no dense content; digest its parts"
    return None


def _hash(kind: str, description: object, *parts: bytes) -> bytes:
    # The kinds fix how many parts follow and, but for one that is last, how long they are: nothing is ambiguous.
    total = hashlib.sha256(json.dumps([_TAG, kind, description]).encode() + b"\n")
    for part in parts:
        total.update(part)
    return total.digest()


def _at(where: str) -> str:
    return f"{where}: " if where else ""
