"""What the store keeps of one request: its trajectory, the output that was served, and whose they are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Final

from difftrace.core.errors import RecordError, TrajectoryError
from difftrace.core.limits import MAX_CANVAS, MAX_TOKEN
from difftrace.core.once import once
from difftrace.core.recording import JsonScalar
from difftrace.core.text import printable
from difftrace.core.trajectory import Ints, Trajectory, int_column

MAX_ID_BYTES: Final = 4096
"""Longest request id and model name, in bytes of UTF-8."""

MAX_METADATA_BYTES: Final = 1 << 20
"""Most metadata of one record, in bytes of JSON."""

_DIGEST_HEADER: Final = b"difftrace-record-1\n"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
_LARGEST_INTEGER: Final = (1 << 63) - 1
_SHOWN: Final = 60


@dataclass(frozen=True, eq=False, repr=False)
class Record:
    """One sequence of one request. A batch is one record per row, with ids such as "batch-7/0".

    Attributes:
        request_id: any text that is not empty, taken as it is: neither a path nor a pattern, and "é" written as
            one character is another id than the same written as two.
        trajectory: the run.
        output: token ids that were served, shape [N], as the caller had them; None where they were not kept. A copy
            that owes nothing to the trajectory, for a replay to be compared with.
        model: name of the model, None where unknown.
        metadata: whatever else belongs to the request; texts to texts, numbers, truth values or None.
        created_at: when the request was served, with a time zone, kept in UTC to the microsecond; now if not given.

    Raises:
        RecordError: a field cannot be stored as it is.
    """

    request_id: str
    trajectory: Trajectory
    output: Ints | None = None
    model: str | None = None
    metadata: Mapping[str, JsonScalar] = field(default_factory=dict)
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def __post_init__(self) -> None:
        check_text("request_id", self.request_id)
        if not isinstance(self.trajectory, Trajectory):
            raise RecordError(f"trajectory must be a Trajectory, not {type(self.trajectory).__name__}")
        if self.model is not None:
            check_text("model", self.model)
        self.__dict__.update(
            output=None if self.output is None else _tokens(self.output),
            metadata=checked_metadata(self.metadata),
            created_at=in_utc("created_at", self.created_at),
        )

    @once
    def digest(self) -> str:
        """`record_digest` of the fields."""
        output = None if self.output is None else output_bytes(self.output)
        moment, metadata = microseconds(self.created_at), metadata_json(self.metadata)
        return record_digest(self.request_id, moment, self.model, metadata, self.trajectory.digest, output)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Record) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Record {shown(self.request_id)}: {self.trajectory!r}>"


@dataclass(frozen=True)
class Entry:
    """What a listing shows of a record without reading its trajectory.

    Attributes:
        request_id: as of the record.
        created_at: as of the record.
        model: as of the record.
        metadata: as of the record.
        prompt_length: tokens of the prompt.
        canvas_length: positions of the canvas.
        num_steps: denoising steps.
        num_events: committed tokens, repeated commits included.
        trajectory_digest: `Trajectory.digest`.
    """

    request_id: str
    created_at: datetime
    model: str | None
    metadata: Mapping[str, JsonScalar]
    prompt_length: int
    canvas_length: int
    num_steps: int
    num_events: int
    trajectory_digest: str


def check_text(name: str, text: object) -> None:
    """Refuse a `text`, called `name`, that no UTF-8 column can hold or that is longer than any name.

    Raises:
        RecordError: it is refused.
    """
    if not isinstance(text, str):
        raise RecordError(f"{name} must be a text, not {type(text).__name__}")
    if not text:
        raise RecordError(f"{name} is empty")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise RecordError(f"{name} {shown(text)} holds half a surrogate pair, which is no character") from None
    if size > MAX_ID_BYTES:
        raise RecordError(f"{name} {shown(text)} takes {size} bytes, more than the limit of {MAX_ID_BYTES}")


def in_utc(name: str, time: object) -> datetime:
    """Return `time`, called `name`, in UTC.

    Raises:
        RecordError: it is no time with a time zone.
    """
    if not isinstance(time, datetime):
        raise RecordError(f"{name} must be a datetime, not {type(time).__name__}")
    if time.utcoffset() is None:
        raise RecordError(f"{name} has no time zone, so that it means another moment on each machine; give it one")
    try:
        return time.astimezone(timezone.utc)
    except OverflowError:
        raise RecordError(f"{name} is {time}, which no UTC time of the years 1 to 9999 equals") from None


def microseconds(time: datetime) -> int:
    """Return `time` as microseconds since 1970 in UTC."""
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """Return what `microseconds` was given.

    Raises:
        OverflowError: it lies outside the years 1 to 9999.
    """
    return _EPOCH + count * _MICROSECOND


def checked_metadata(values: object) -> Mapping[str, JsonScalar]:
    """Return a read-only copy of the metadata `values`.

    Raises:
        RecordError: they are no flat mapping of texts to values that JSON can hold.
    """
    if not isinstance(values, Mapping):
        raise RecordError(f"metadata must be a mapping, not {type(values).__name__}")
    metadata = dict(values)
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise RecordError(f"metadata has the key {shown(repr(key))}, which is no text")
        _check_value(key, value)
    text = metadata_json(metadata)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise RecordError("metadata holds half a surrogate pair, which is no character") from None
    if size > MAX_METADATA_BYTES:
        raise RecordError(f"metadata takes {size} bytes as JSON, more than the limit of {MAX_METADATA_BYTES}")
    return MappingProxyType(metadata)


def metadata_json(metadata: Mapping[str, JsonScalar]) -> str:
    """Return `metadata` as JSON, the same text for the same content."""
    return json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def output_bytes(output: Ints) -> bytes:
    """Return `output` as little-endian 32-bit integers.

    Plainer than the trajectory's encoding, so that no fault of that can be in both.
    """
    return output.astype("<i4").tobytes()


def record_digest(
    request_id: str, created_at: int, model: str | None, metadata: str, trajectory_digest: str, output: bytes | None
) -> str:
    """Return `sha256:` and 64 hex digits over a record, whatever it is kept in.

    Hashed are `difftrace-record-1` and a line feed, then the arguments in order, texts as UTF-8 and the time (in
    microseconds since 1970) in decimal digits: for each its length in bytes as 8 little-endian bytes and the bytes,
    for None a length of 2**64 - 1 alone.
    """
    digest = hashlib.sha256(_DIGEST_HEADER)
    for value in (request_id, str(created_at), model, metadata, trajectory_digest, output):
        data = value.encode("utf-8") if isinstance(value, str) else value
        digest.update(b"\xff" * 8 if data is None else len(data).to_bytes(8, "little") + data)
    return f"sha256:{digest.hexdigest()}"


def shown(text: str) -> str:
    """Return `text` for a message: quoted, printable, shortened."""
    safe = printable(text)
    return f"'{safe}'" if len(safe) <= _SHOWN else f"'{safe[:_SHOWN]}…'"


def _tokens(values: object) -> Ints:
    try:
        tokens = int_column("output", values, MAX_TOKEN, MAX_CANVAS)
    except TrajectoryError as error:
        raise RecordError(str(error)) from None
    tokens.setflags(write=False)
    return tokens


def _check_value(key: str, value: object) -> None:
    where = f"metadata[{shown(key)}]"
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        if abs(value) > _LARGEST_INTEGER:
            raise RecordError(f"{where} is an integer of more than 64 bits; give it as a text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} is {value}, which JSON cannot hold")
    else:
        raise RecordError(
            f"{where} must be a text, a number, true, false or None, not {type(value).__name__}; nest nothing"
        )
