"""Checkpoints on disk: one safetensors file or several with an index; found, checked, digested, loaded."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from difftrace.core.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_HEADER_LIMIT = 100 * 1024 * 1024  # the safetensors format's own limit
_CHUNK = 1 << 24


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in a file: safetensors dtype name, shape, and its bytes' place."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model folder, by name; nothing is read but the headers."""

    tensors: Mapping[str, StoredTensor]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype most of the parameters are stored in.

        Raises ModelError where that is no floating-point type (a quantised checkpoint).
        """
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.end - tensor.begin
        name = max(sizes, key=lambda key: (sizes[key], key))
        if name not in _FLOATS:
            raise ModelError(f"weights are stored as {name}; only {', '.join(_FLOATS)} can be run")
        return _FLOATS[name]

    def digest(self) -> str:
        """Return `sha256:` over names, dtypes, shapes and bytes as stored, before any cast.

        Tensors are taken in order of name, so sharding changes nothing. Streams through the files once.
        """
        total = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            total.update(json.dumps([name, tensor.dtype, list(tensor.shape)]).encode() + b"\n")
            with tensor.file.open("rb") as stream:
                for chunk in _read(stream, tensor.begin, tensor.end):
                    total.update(chunk)
        return f"sha256:{total.hexdigest()}"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of `model.safetensors`, or of the shards that `model.safetensors.index.json` names.

    Raises ModelError for a folder without either, a shard that is missing, truncated or leaves the folder, and for an
    index that names tensors its shards do not hold.
    """
    index = folder / INDEX
    if index.is_file():
        return _open_sharded(folder, index)
    single = folder / SINGLE
    if not single.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({', '.join(pickled)} would need unpickling, which is never done)" if pickled else ""
        raise ModelError(f"{folder}: holds neither {SINGLE} nor {INDEX}{hint}")
    return Checkpoint({tensor.name: tensor for tensor in _header(single)})


def load_into(model: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device | str) -> None:
    """Replace the parameters of `model` (built on the meta device) by the stored ones, cast to `dtype`, on `device`.

    Raises one ModelError listing every missing, unexpected and misshapen tensor; nothing is loaded then.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = _mismatches(wanted, checkpoint)
    if problems:
        raise ModelError("the checkpoint does not fit the model: " + "; ".join(problems))
    by_file: dict[Path, list[str]] = {}
    for name in wanted:
        by_file.setdefault(checkpoint.tensors[name].file, []).append(name)
    for file, names in by_file.items():
        try:
            with safe_open(file, framework="pt", device="cpu") as tensors:
                for name in names:
                    _assign(model, name, tensors.get_tensor(name).to(device=device, dtype=dtype))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: cannot read the weights: {error}") from error


def _assign(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def _mismatches(wanted: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> list[str]:
    problems = []
    stored = checkpoint.tensors
    problems += _named("missing", sorted(set(wanted) - set(stored)))
    problems += _named("unexpected", sorted(set(stored) - set(wanted)))
    misshapen = [
        f"{name} (is {list(stored[name].shape)}, must be {list(shape)})"
        for name, shape in wanted.items()
        if name in stored and stored[name].shape != shape
    ]
    problems += _named("misshapen", misshapen)
    unsupported = [f"{t.name} ({t.dtype})" for t in stored.values() if t.dtype not in _FLOATS]
    return problems + _named("of an unsupported dtype", unsupported)


def _named(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = names[:12]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return [f"{len(names)} {kind}: {', '.join(shown)}{more}"]


def _open_sharded(folder: Path, index: Path) -> Checkpoint:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(name), str(shard)) for name, shard in weight_map.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index}: no readable index with a weight_map: {error}") from error
    if not pairs:
        raise ModelError(f"{index}: its weight_map is empty")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted({shard for _, shard in pairs}):
        if Path(shard).name != shard:
            raise ModelError(f"{index}: shard {shard!r} is no plain file name")
        if not (folder / shard).is_file():
            raise ModelError(f"{folder}: shard {shard} is named in {INDEX} but is not there")
        for tensor in _header(folder / shard):
            if tensor.name in tensors:
                raise ModelError(f"{folder}: tensor {tensor.name} lies in several shards")
            tensors[tensor.name] = tensor
    absent = [name for name, shard in pairs if name not in tensors or tensors[name].file.name != shard]
    if absent:
        raise ModelError(f"{index}: shards do not hold what the index says: " + _named("missing", absent)[0])
    return Checkpoint(tensors)


def _header(path: Path) -> list[StoredTensor]:
    """Read a safetensors header: 8 bytes of length, JSON, then the data that the JSON's offsets cut up."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _HEADER_LIMIT):
            raise ModelError(f"{path}: truncated or no safetensors file")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            tensors = [
                StoredTensor(
                    name,
                    str(entry["dtype"]),
                    tuple(int(axis) for axis in entry["shape"]),
                    path,
                    8 + length + int(entry["data_offsets"][0]),
                    8 + length + int(entry["data_offsets"][1]),
                )
                for name, entry in header.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise ModelError(f"{path}: unreadable safetensors header") from error
    for tensor in tensors:
        if not 8 + length <= tensor.begin <= tensor.end <= size:
            raise ModelError(f"{path}: truncated: tensor {tensor.name} ends beyond the file")
    if not tensors:
        raise ModelError(f"{path}: holds no tensors")
    return tensors


def _read(stream: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    stream.seek(begin)
    while begin < end:
        chunk = stream.read(min(_CHUNK, end - begin))
        if not chunk:
            raise ModelError(f"{stream.name}: ended while being read")
        begin += len(chunk)
        yield chunk
