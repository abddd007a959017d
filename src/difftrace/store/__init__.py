"""What was generated for which request, kept on disk: records, the store, its background writer, exports, salvage."""

from difftrace.store.damage import Problem
from difftrace.store.jsonl import export_jsonl, import_jsonl
from difftrace.store.parquet import export_parquet, import_parquet
from difftrace.store.query import Query
from difftrace.store.record import Entry, Record
from difftrace.store.salvage import Salvaged, salvage
from difftrace.store.store import Changes, Store
from difftrace.store.writer import BackgroundWriter, WriterCounters

__all__ = [
    "BackgroundWriter",
    "Changes",
    "Entry",
    "Problem",
    "Query",
    "Record",
    "Salvaged",
    "Store",
    "WriterCounters",
    "export_jsonl",
    "export_parquet",
    "import_jsonl",
    "import_parquet",
    "salvage",
]
