"""Records as JSON Lines: a header, one line per record, and a trailer that tells a whole file from a part.

schemas/store_export.schema.json describes the lines. They are in ASCII with sorted keys, and ordered by time and
request id, so that equal records give equal bytes.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Final

from difftrace.core import strict_json
from difftrace.core.atomic import open_atomically
from difftrace.core.errors import FormatError, NewerFormatError, RecordError, TrajectoryError
from difftrace.core.limits import MAX_CANVAS, MAX_TOKEN
from difftrace.core.schemas import violation
from difftrace.core.text import printable
from difftrace.core.trajectory import int_column
from difftrace.store.paths import checked_path, refuse_own_files
from difftrace.store.query import EVERYTHING, Query
from difftrace.store.record import Record, checked_metadata, metadata_json, microseconds, output_bytes
from difftrace.store.row import Row, decode
from difftrace.store.store import Changes, Store
from difftrace.store.transfer import FORMAT, VERSION, store_all

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
# Bytes. Above what the largest record within the limits of a trajectory takes.
_LONGEST_LINE: Final = 64 << 20


def export_jsonl(store: Store, path: str | os.PathLike[str], query: Query = EVERYTHING) -> int:
    """Write the records that `query` means to the file `path`, as a whole or not at all; return how many.

    Each is checked first, so that damage does not spread. What others store meanwhile may or may not be among them.

    Raises:
        StoreError: a record is damaged, or `path` is a file of the store itself.
        WriteError: the file could not be written; one that was there before is whole.
    """
    target = checked_path(path)
    refuse_own_files(store.path, target)
    number, digest = 0, hashlib.sha256()
    with open_atomically(target) as file:
        header = _line({"format": FORMAT, "version": VERSION})
        digest.update(header)
        file.write(header)
        for record, row in store.rows(query):
            line = _line(_document(record, row))
            digest.update(line)
            file.write(line)
            number += 1
        file.write(_line({"records": number, "digest": f"sha256:{digest.hexdigest()}"}))
    return number


def import_jsonl(store: Store, path: str | os.PathLike[str], *, replace: bool = False) -> Changes:
    """Store the records of the file `path` in one transaction, or none of them; doing it again changes nothing.

    Every line, digest and column is checked before the first record is stored.

    Raises:
        FormatError: the file cannot be read or is no such export; one line naming file, line and field.
        ConflictError: a different record has a request id and `replace` is False; none is stored.
        StoreError: `path` is a file of the store itself.
    """
    source = printable(str(path))
    with contextlib.closing(_opened(store, path, source)) as file:
        return store_all(store, _rows(file, source), replace)


def _opened(store: Store, path: str | os.PathLike[str], source: str) -> BinaryIO:
    try:
        refuse_own_files(store.path, Path(path))
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise FormatError(f"{source}: cannot be read ({printable(str(error))})") from error


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def _document(record: Record, row: Row) -> dict[str, Any]:
    return {
        **row._asdict(),
        "created_at": record.created_at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
        "metadata": dict(record.metadata),
        "trajectory": base64.b64encode(row.trajectory).decode("ascii"),
        "output": None if record.output is None else record.output.tolist(),
    }


def _rows(file: BinaryIO, source: str) -> Iterator[Row]:
    """Yield the rows of an export after checking each, then check that it was whole."""
    digest = hashlib.sha256()
    for number, line in enumerate(_lines(file, source), start=1):
        try:
            document = _parsed(line, first=number == 1)
            if number > 1 and "request_id" not in document:
                _check_trailer(document, number - 2, digest.hexdigest())
                if file.read(1):
                    raise FormatError("something follows the trailer")
                return
            if number > 1:
                yield _row(document)
        except FormatError as error:
            raise type(error)(f"{source}: line {number}: {error}") from None
        digest.update(line)
    raise FormatError(f"{source}: ends without a trailer: it was cut off or is no export of a store")


def _lines(file: BinaryIO, source: str) -> Iterator[bytes]:
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise FormatError(f"{source}: holds a line longer than the limit of {_LONGEST_LINE} bytes")
        yield line


def _parsed(line: bytes, first: bool) -> dict[str, Any]:
    document = strict_json.loads(line)
    if first:
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise FormatError(f'$.format: is not "{FORMAT}", so this is no export of a store')
        version = document.get("version")
        if isinstance(version, str) and version != VERSION:
            raise NewerFormatError(
                f"$.version: is {printable(version)}; this pytest-difftrace reads {VERSION}, so update it"
            )
    # A list of numbers takes the validator milliseconds; _row checks it.
    served = isinstance(document, dict) and isinstance(document.get("output"), list)
    problem = violation("store_export", {**document, "output": []} if served else document)
    if problem is not None:
        raise FormatError(problem)
    if not first and "format" in document:
        raise FormatError("a second header; import the exports one by one")
    parsed: dict[str, Any] = document
    return parsed


def _check_trailer(document: dict[str, Any], records: int, digest: str) -> None:
    if document["records"] != records:
        raise FormatError(f"$.records: is {document['records']}, but there are {records}")
    if document["digest"] != f"sha256:{digest}":
        raise FormatError("$.digest: does not match the lines before; the file was changed after it was written")


def _row(document: dict[str, Any]) -> Row:
    try:
        time = datetime.strptime(document["created_at"], _TIME).replace(tzinfo=timezone.utc)
        trajectory = base64.b64decode(document["trajectory"], validate=True)
    except binascii.Error:
        raise FormatError("$.trajectory: is not base64") from None
    except ValueError:
        raise FormatError("$.created_at: is no time of the calendar") from None
    served = document["output"]
    try:
        metadata = metadata_json(checked_metadata(document["metadata"]))
        output = None if served is None else output_bytes(int_column("output", served, MAX_TOKEN, MAX_CANVAS))
    except (RecordError, TrajectoryError) as error:
        raise FormatError(f"$.{error}") from None
    row = Row(
        **{
            **document,
            "created_at": microseconds(time),
            "metadata": metadata,
            "trajectory": trajectory,
            "output": output,
        }
    )
    decode(row)
    return row
