"""What was generated for which request, kept on disk: records, the store, its background writer, its exports."""

from difftrace.store.jsonl import export_jsonl, import_jsonl
from difftrace.store.parquet import export_parquet, import_parquet
from difftrace.store.query import Query
from difftrace.store.record import Entry, Record
from difftrace.store.store import Changes, Problem, Store
from difftrace.store.writer import BackgroundWriter, WriterCounters

__all__ = [
    "BackgroundWriter",
    "Changes",
    "Entry",
    "Problem",
    "Query",
    "Record",
    "Store",
    "WriterCounters",
    "export_jsonl",
    "export_parquet",
    "import_jsonl",
    "import_parquet",
]
