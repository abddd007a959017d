"""Logits on their way to the host: copied into buffers of words, from whatever they are in.

A tensor is known by the library that is loaded when there is one, so that none is imported here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from difftrace.core.errors import EngineError
from difftrace.core.kept_arrays import Array, on_host
from difftrace.core.logits_dtypes import Bits, dtype_named

_PREFIX: Final = "torch."


@dataclass(frozen=True)
class Rows:
    """What a model returned for the positions of one sequence.

    Attributes:
        values: tensor or array [L, V], as it lies where the model left it.
        dtype: the name of its dtype, "bfloat16".
    """

    values: Any
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        """(L, V)."""
        length, vocabulary = self.values.shape
        return int(length), int(vocabulary)


@dataclass(frozen=True)
class Buffer:
    """Memory of the host for some rows.

    Attributes:
        words: their bits, [rows, V].
        tensor: the same memory as what tensors are copied to; None where arrays are.
    """

    words: Bits
    tensor: Any


def rows_of(name: str, logits: Any) -> Rows:
    """Return logits [L, V] or [1, L, V], tensor or array, as rows; `name` is what messages call them.

    Raises:
        EngineError: they have another shape.
        LogitsError: they are of a dtype that cannot be recorded.
    """
    given = logits.detach() if _is_tensor(logits) else _little_endian(on_host(logits))
    dtype = str(given.dtype).removeprefix(_PREFIX)
    dtype_named(dtype)
    shape = tuple(given.shape)
    if len(shape) == 3 and shape[0] == 1:
        given, shape = given[0], shape[1:]
    if len(shape) != 2 or 0 in shape:
        raise EngineError(
            f"{name} must have the shape [L, V], positions and vocabulary, not {list(shape)}; capture each sequence of"
            " a batch by itself"
        )
    return Rows(given, dtype)


def buffer_for(rows: Rows, count: int) -> Buffer:
    """Return memory for `count` rows like `rows`; of a kind that their device can copy to while the host goes on."""
    word = dtype_named(rows.dtype).word
    shape = (count, rows.shape[1])
    if not _is_tensor(rows.values):
        return Buffer(np.empty(shape, dtype=word), None)
    library = sys.modules["torch"]
    # Made outside, it may be written to inside inference mode and outside of it.
    with library.inference_mode(mode=False):
        tensor = rows.values.new_empty(shape, device="cpu", pin_memory=rows.values.is_cuda)
        integers = {2: library.int16, 4: library.int32, 8: library.int64}[word.itemsize]
        return Buffer(tensor.view(integers).numpy().view(word), tensor)


def send(rows: Rows, start: int, stop: int, buffer: Buffer) -> Any:
    """Copy some rows to the first of `buffer`; return the event to wait for, or None where they are there already."""
    part = rows.values[start:stop]
    if buffer.tensor is None:
        # Of arrays too, bfloat16 is a dtype that numpy itself does not know.
        buffer.words[: stop - start] = np.ascontiguousarray(part).view(buffer.words.dtype)
        return None
    library = sys.modules["torch"]
    sends = part.is_cuda
    with library.no_grad():
        buffer.tensor[: stop - start].copy_(part, non_blocking=sends)
    if not sends:
        # Of other devices nobody could tell when the copy is done, so that it is waited for.
        return None
    stream = library.cuda.current_stream(part.device)
    # The loop may let go of them at once, and have made them on another stream.
    part.record_stream(stream)
    event = library.cuda.Event()
    event.record(stream)
    return event


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array


def _is_tensor(values: Any) -> bool:
    library = sys.modules.get("torch")
    return library is not None and isinstance(values, library.Tensor)
