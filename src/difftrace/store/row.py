"""A record as the values of one row, and back through every check."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np

# What encoding a trajectory would import when it first happens, possibly in a background thread while the program
# forks, whose child would then wait for that import for ever.
import zstandard  # noqa: F401

from difftrace.core import strict_json
from difftrace.core.errors import FormatError, RecordError
from difftrace.core.recording import JsonScalar
from difftrace.core.trajectory import Trajectory
from difftrace.store.record import (
    Entry,
    Record,
    check_text,
    from_microseconds,
    metadata_json,
    microseconds,
    output_bytes,
)


class Row(NamedTuple):
    """The columns of a record, in the order of the table.

    Attributes:
        request_id: the record's.
        created_at: microseconds since 1970 in UTC.
        model: the record's.
        metadata: JSON with sorted keys.
        prompt_length: of the trajectory, as are the next three.
        canvas_length: positions.
        num_steps: denoising steps.
        num_events: committed tokens.
        trajectory_digest: `Trajectory.digest`.
        digest: `Record.digest`.
        trajectory: `Trajectory.to_bytes()`.
        output: `output_bytes` of the record's.
    """

    request_id: str
    created_at: int
    model: str | None
    metadata: str
    prompt_length: int
    canvas_length: int
    num_steps: int
    num_events: int
    trajectory_digest: str
    digest: str
    trajectory: bytes
    output: bytes | None


TYPES: Final = {
    "request_id": (str,),
    "created_at": (int,),
    "model": (str, type(None)),
    "metadata": (str,),
    "prompt_length": (int,),
    "canvas_length": (int,),
    "num_steps": (int,),
    "num_events": (int,),
    "trajectory_digest": (str,),
    "digest": (str,),
    "trajectory": (bytes,),
    "output": (bytes, type(None)),
}
ENTRY_COLUMNS: Final = Row._fields[: Row._fields.index("digest")]


def encode(record: Record) -> Row:
    """Return the row of `record`.

    Raises:
        RecordError: it is none.
    """
    if not isinstance(record, Record):
        raise RecordError(f"a store keeps records, not {type(record).__name__}")
    trajectory = record.trajectory
    return Row(
        request_id=record.request_id,
        created_at=microseconds(record.created_at),
        model=record.model,
        metadata=metadata_json(record.metadata),
        prompt_length=trajectory.prompt.size,
        canvas_length=trajectory.length,
        num_steps=trajectory.num_steps,
        num_events=trajectory.num_events,
        trajectory_digest=trajectory.digest,
        digest=record.digest,
        trajectory=trajectory.to_bytes(),
        output=None if record.output is None else output_bytes(record.output),
    )


def decode(row: Row) -> Record:
    """Return the record of `row` after checking that every column holds what it should.

    Raises:
        FormatError: one does not; the message lacks the row's request id.
    """
    for name, types in TYPES.items():
        if not isinstance(getattr(row, name), types):
            raise FormatError(f"{name} holds a {type(getattr(row, name)).__name__}")
    metadata = _metadata(row.metadata)
    try:
        trajectory = Trajectory.from_bytes(row.trajectory)
    except FormatError as error:
        raise FormatError(f"trajectory: {error}") from None
    sizes = trajectory.prompt.size, trajectory.length, trajectory.num_steps, trajectory.num_events
    for name, size in zip(("prompt_length", "canvas_length", "num_steps", "num_events"), sizes, strict=True):
        if getattr(row, name) != size:
            raise FormatError(f"{name} is {getattr(row, name)}, but the trajectory holds {size}")
    if trajectory.digest != row.trajectory_digest:
        raise FormatError("trajectory_digest does not match the trajectory")
    output = None
    if row.output is not None:
        if len(row.output) % 4:
            raise FormatError(f"output has {len(row.output)} bytes, which are no 32-bit integers")
        output = np.frombuffer(row.output, dtype="<i4")
    try:
        record = Record(row.request_id, trajectory, output, row.model, metadata, _time(row.created_at))
    except RecordError as error:
        raise FormatError(str(error)) from None
    if row.metadata != metadata_json(metadata):
        raise FormatError("metadata is not written as it would be here, so that equal ones would differ")
    if record.digest != row.digest:
        raise FormatError("digest does not match the record; it was changed after it was stored")
    return record


def differences(one: Row, other: Row) -> list[str]:
    """Return the names of the fields in which two records of one request id differ.

    The time is not compared: a second attempt to store something does not share it with the first.
    """
    compared = {"trajectory": "trajectory_digest", "output": "output", "model": "model", "metadata": "metadata"}
    return [name for name, column in compared.items() if getattr(one, column) != getattr(other, column)]


def decode_entry(values: tuple[Any, ...]) -> Entry:
    """Return the entry of a row's `ENTRY_COLUMNS`, which are not compared with what they tell of.

    Raises:
        FormatError: one holds what it never should.
    """
    columns = dict(zip(ENTRY_COLUMNS, values, strict=True))
    for name, value in columns.items():
        if not isinstance(value, TYPES[name]):
            raise FormatError(f"{name} holds a {type(value).__name__}")
    try:
        check_text("request_id", columns["request_id"])
    except RecordError as error:
        raise FormatError(str(error)) from None
    return Entry(**{**columns, "created_at": _time(columns["created_at"]), "metadata": _metadata(columns["metadata"])})


def _time(count: int) -> datetime:
    try:
        return from_microseconds(count)
    except OverflowError:
        raise FormatError(f"created_at is {count}, which lies outside the years 1 to 9999") from None


def _metadata(text: str) -> Mapping[str, JsonScalar]:
    try:
        document = strict_json.loads(text.encode("utf-8", "surrogateescape"))
    except FormatError as error:
        raise FormatError(f"metadata: {error}") from None
    if not isinstance(document, dict):
        raise FormatError("metadata is no JSON object")
    return document
