"""Records as a Parquet file, one row per trajectory, for DuckDB, Spark, Ray Data and the like.

Columns: request_id, created_at (microseconds, UTC), model, metadata (JSON), prompt_length, canvas_length, num_steps,
num_events, trajectory_digest, digest, trajectory (what `Trajectory.from_bytes` reads), output (list of token ids).
Needs pyarrow: `pip install "pytest-difftrace[parquet]"`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timezone
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from difftrace.core.atomic import open_atomically
from difftrace.core.errors import FormatError, NewerFormatError, RecordError, StoreError
from difftrace.core.text import printable
from difftrace.store.paths import checked_path, refuse_own_files
from difftrace.store.query import EVERYTHING, Query
from difftrace.store.record import in_utc, microseconds, output_bytes, shown
from difftrace.store.row import Row, decode
from difftrace.store.store import Changes, Store
from difftrace.store.transfer import FORMAT, VERSION, store_all

# Rows. Large enough to compress and to be skipped by statistics, small enough to hold in memory.
_ROW_GROUP: Final = 10_000
_BATCH: Final = 256
_KEYS: Final = (b"difftrace.format", b"difftrace.version")


def export_parquet(store: Store, path: str | os.PathLike[str], query: Query = EVERYTHING) -> int:
    """Write the records that `query` means to the Parquet file `path`, as a whole or not at all; return how many.

    Each is checked first, so that damage does not spread. What others store meanwhile may or may not be among them.

    Raises:
        StoreError: a record is damaged, `path` is a file of the store itself, or pyarrow is missing.
        WriteError: the file could not be written; one that was there before is whole.
    """
    target = checked_path(path)
    refuse_own_files(store.path, target)
    arrow = _pyarrow()
    import pyarrow.parquet as parquet

    schema = _schema(arrow)
    number = 0
    with open_atomically(target) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for values in _chunks(store, query):
            writer.write_table(arrow.Table.from_pylist(values, schema=schema), row_group_size=_ROW_GROUP)
            number += len(values)
    return number


def import_parquet(store: Store, path: str | os.PathLike[str], *, replace: bool = False) -> Changes:
    """Store the records of the Parquet file `path` in one transaction, or none; doing it again changes nothing.

    The file must be an export of a store, or have the columns of one. Times have to say that they are in UTC, except
    those of 96 bits, which Spark writes by default: it always means UTC by them. Every value and digest is checked
    before the first record is stored.

    Raises:
        FormatError: the file cannot be read or is no such export; one line naming file, row and column.
        ConflictError: a different record has a request id and `replace` is False; none is stored.
        StoreError: `path` is a file of the store itself, or pyarrow is missing.
    """
    refuse_own_files(store.path, Path(path))
    arrow = _pyarrow()
    import pyarrow.parquet as parquet

    source = printable(str(path))
    try:
        with parquet.ParquetFile(Path(path), coerce_int96_timestamp_unit="us") as file:
            _check_schema(arrow, file.schema_arrow, source)
            return store_all(store, _rows(file, source), replace)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{source}: cannot be read ({printable(str(error))})") from error


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise StoreError('Parquet needs pyarrow: pip install "pytest-difftrace[parquet]"') from error
    module: ModuleType = pyarrow
    return module


def _schema(arrow: Any) -> Any:
    kinds = {
        "created_at": arrow.timestamp("us", tz="UTC"),
        "trajectory": arrow.binary(),
        "output": arrow.list_(arrow.int32()),
        **dict.fromkeys(("prompt_length", "canvas_length", "num_steps", "num_events"), arrow.int32()),
    }
    optional = ("model", "output")
    fields = [arrow.field(name, kinds.get(name, arrow.string()), name in optional) for name in Row._fields]
    return arrow.schema(fields, metadata=dict(zip(_KEYS, (FORMAT, VERSION), strict=True)))


def _check_schema(arrow: Any, found: Any, source: str) -> None:
    known = found.metadata or {}
    version = known.get(_KEYS[1])
    if known.get(_KEYS[0]) == FORMAT.encode() and version != VERSION.encode():
        stated = printable(str(version))
        raise NewerFormatError(
            f"{source}: has the version {stated}; this pytest-difftrace reads {VERSION}, so update it"
        )
    for field in _schema(arrow):
        index = found.get_field_index(field.name)
        if index < 0:
            raise FormatError(f"{source}: has no single column {field.name}, so it is no export of a store")


def _chunks(store: Store, query: Query) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for record, row in store.rows(query):
        chunk.append({**row._asdict(), "created_at": record.created_at, "output": record.output})
        if len(chunk) == _ROW_GROUP:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _rows(file: Any, source: str) -> Iterator[Row]:
    number = 0
    kinds = {column.path: column.physical_type for column in map(file.schema.column, range(len(file.schema)))}
    in_96_bits = kinds.get("created_at") == "INT96"
    for batch in file.iter_batches(_BATCH, columns=list(Row._fields)):
        for values in batch.to_pylist():
            if in_96_bits and values["created_at"] is not None:
                values["created_at"] = values["created_at"].replace(tzinfo=timezone.utc)
            try:
                yield _row(values)
            except FormatError as error:
                raise FormatError(f"{source}: row {number} ({shown(str(values['request_id']))}): {error}") from None
            number += 1


def _row(values: dict[str, Any]) -> Row:
    output = values["output"]
    try:
        moment = microseconds(in_utc("created_at", values["created_at"]))
        row = Row(
            **{
                **values,
                "created_at": moment,
                "output": None if output is None else output_bytes(np.array(output, dtype=np.int32)),
            }
        )
    except (RecordError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(printable(str(error))) from None
    decode(row)
    return row
