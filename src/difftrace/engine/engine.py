"""The engine: a provenance store behind the names of the DiffTrace paper's interface.

The interface is that of Gupta, "DiffTrace", HPAI4S'26 (github.com/raviguptaamd/difftrace, difftrace/engine.py).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from difftrace.core.atomic import move_atomically
from difftrace.core.captured import TrajectoryRecord
from difftrace.core.engine_config import DiffTraceConfig, IOMode, check_config, logits_method
from difftrace.core.errors import DamagedError, EngineError
from difftrace.core.logits_spool import CapturedLogits, LogitsPlan
from difftrace.core.text import printable
from difftrace.engine import logits_files
from difftrace.engine.distributed import agreeing_ranks
from difftrace.engine.logits_files import StoredLogits
from difftrace.engine.replay import ReplayResult, damaged_result, replay_record
from difftrace.engine.times import query_times
from difftrace.store import BackgroundWriter, Entry, Problem, Query, Record, Store

FILE_NAME: Final = "provenance.difftrace"
"""Name of the store in the folder `config.store.base_path`."""


class DiffTraceEngine:
    """Stores captured trajectories and replays them.

    One engine serves any number of threads and requests at once, each of which has a `TrajectoryCapture` of its own;
    several processes may use one folder, each with an engine of its own.

    With `IOMode.SYNC` a trajectory is on the disk when `store_trajectory` returns. With `IOMode.ASYNC`, the default, a
    thread writes it, and `flush`, `replay`, `shutdown`, the end of the interpreter and SIGTERM wait for that, as
    `difftrace.store.BackgroundWriter` describes.

    Logits, with `CaptureGranularity.FULL_LOGITS`, are written to a file for each request while its loop runs, in the
    folder `logits` beside the store, and the record has their digest. That is by far the most expensive thing to keep:
    128 positions in 64 steps of LLaDA-8B's vocabulary in bfloat16 are 2.07 GB, which one thread encodes at about
    150 MB/s on a core; the file takes about 70 % of it where they are kept exactly. A loop that is faster waits for
    that thread, `end_trajectory` waits for its end and for the disk, and such a record is stored before
    `store_trajectory` returns, also with `IOMode.ASYNC`. The memory that it takes is bounded, see
    `difftrace.core.logits_spool`. Exports of the store hold the digests alone.

    Args:
        config: see `difftrace.core.engine_config`; later changes of it have no effect. Its `capture.logits` is set, so
            that captures made with it write where this engine stores.

    With `distributed.enabled` every rank has an engine and stores the same requests in the same order, or reports that
    it failed at one; request ids and decisions are compared by digest, and the coordinator alone has a store, whose
    methods raise EngineError elsewhere.

    Raises:
        EngineError: a setting cannot have its effect.
        StoreError: the store cannot be opened.
    """

    def __init__(self, config: DiffTraceConfig | None = None) -> None:
        self.config = DiffTraceConfig() if config is None else config
        check_config(self.config)
        self._store: Store | None = None
        self._writer: BackgroundWriter | None = None
        self._method = logits_method(self.config.compression)
        self._logits_folder = Path(self.config.store.base_path).absolute() / logits_files.FOLDER
        self._ranks = agreeing_ranks(self.config.distributed) if self.config.enabled else None
        stores = self._ranks is None or self._ranks.rank == self.config.distributed.coordinator_rank
        if self.config.enabled and stores:
            path = Path(self.config.store.base_path) / FILE_NAME
            durability = self.config.store.durability
            self._store = Store(path, durability=durability)
            if self.config.io.mode is IOMode.ASYNC:
                try:
                    capacity = self.config.io.max_queue_size
                    self._writer = BackgroundWriter(path, capacity=capacity, durability=durability)
                except BaseException:
                    self._store.close()
                    raise
        # Who stores nothing need not write them to a file first.
        self.config.capture.logits = LogitsPlan(self._logits_folder, self._method, kept=self._store is not None)

    @property
    def store(self) -> Store:
        """The store, for all that an engine has no method for.

        Raises:
            EngineError: `config.enabled` is False, or another rank stores.
        """
        if self._store is None:
            if self._ranks is not None:
                coordinator = self.config.distributed.coordinator_rank
                raise EngineError(f"rank {self._ranks.rank} stores nothing; ask the engine of rank {coordinator}")
            raise EngineError("this engine stores nothing, for its config has enabled=False")
        return self._store

    def store_trajectory(self, trajectory: TrajectoryRecord) -> Record | None:
        """Store what `end_trajectory` returned, and return it as the store keeps it.

        None with `enabled=False`, and on ranks that store nothing.

        The same again changes nothing.

        Raises:
            EngineError: the capture has not ended.
            RecordError: the request id, or what was given with the request, cannot be stored as it is.
            ConflictError: a different trajectory has the request id; with `IOMode.ASYNC` raised by the next `flush`,
                `replay` or `shutdown` instead, unless it has logits.
            StoreError: the disk fails, now or, with `IOMode.ASYNC`, since the last call.
            WriteError: the file of its logits cannot be written.
            RankError: with `distributed.enabled`, another rank captured something else, failed at this request or is
                at another one; nothing is stored. Every rank is told which and where.
        """
        if not isinstance(trajectory, TrajectoryRecord):
            raise EngineError(
                f"store_trajectory() takes what end_trajectory() returned, not {printable(type(trajectory).__name__)}"
            )
        if trajectory.trajectory is None:
            raise EngineError(
                f"the capture of '{printable(str(trajectory.request_id))}' has not ended; store what end_trajectory()"
                " returns"
            )
        if self._ranks is not None:
            self._ranks.agree([trajectory.trajectory], _label(trajectory.request_id))
        if self._store is None:
            return None
        logits = trajectory.logits
        if logits is not None:
            logits = logits_files.in_method(logits, self._logits_folder, self._method)
        record = _record(trajectory, logits)
        if logits is not None:
            self._put_with_logits(self._store, record, logits)
        elif self._writer is None:
            self._store.put(record)
        else:
            self._writer.put(record)
        return record

    def report_failure(self, request_id: str, error: BaseException) -> None:
        """Tell the other ranks that this one has nothing to store of `request_id`, because of `error`.

        They wait for it in `store_trajectory`, which then raises RankError at once instead of after the group's
        timeout. Nothing happens with one rank, or without `distributed.enabled`. Where every rank failed, each calls
        this and none waits.
        """
        if self._ranks is not None:
            self._ranks.fail(_label(request_id), f"{type(error).__name__}: {error}")

    def replay(self, request_id: str) -> ReplayResult:
        """Reconstruct a stored request from its events and compare it with its stored output.

        A damaged record is a result that is no exact match and has no tokens, with the damage as its reason.

        Raises:
            EngineError: `config.enabled` is False.
            NotStoredError: nothing is stored under `request_id`.
            StoreError: what was queued before could not be written, or the store not be read.
        """
        store = self.store
        self.flush()
        try:
            record = store.get(request_id)
        except DamagedError as error:
            return damaged_result(request_id, str(error))
        return replay_record(record)

    def logits(self, request_id: str) -> StoredLogits:
        """Return the logits of a stored request: `engine.logits("a")[3]` is what the model returned at step 3, [L, V].

        Nothing is read but what is asked for, and that is checked against the digest in the record.

        Raises:
            EngineError: no logits were stored with it, or `config.enabled` is False.
            NotStoredError: nothing is stored under `request_id`.
            FormatError: the file is missing, damaged, or not the one that was stored.
            StoreError: what was queued before could not be written, or the store not be read.
        """
        store = self.store
        self.flush()
        return logits_files.open_stored(self._logits_folder, store.get(request_id))

    def verify_all(self) -> list[Problem]:
        """Check the store, every record and all logits; return all problems, none where everything is whole.

        `store.verify_all` leaves logits out, which take by far the longest to read.

        Raises:
            EngineError: `config.enabled` is False.
            StoreError: what was queued before could not be written, or the store not be opened.
        """
        store = self.store
        self.flush()
        return store.verify_all(lambda record: logits_files.problem_of(self._logits_folder, store, record))

    def delete(self, *request_ids: str) -> int:
        """Delete the records of `request_ids` and their logits; return how many there were.

        `store.delete` leaves the logits behind.

        Raises:
            EngineError: `config.enabled` is False.
            StoreError: what was queued before could not be written, or the disk fails.
        """
        store = self.store
        self.flush()
        deleted = store.delete(*request_ids)
        for request_id in request_ids:
            logits_files.remove(self._logits_folder, request_id)
        return deleted

    def remove_unused_logits(self, older_than: timedelta = timedelta(days=1)) -> int:
        """Delete logits of no stored request, as processes that were killed leave behind; return how many there were.

        Args:
            older_than: leave alone what was written to since; choose it longer than any request takes to be stored.

        Raises:
            EngineError: `config.enabled` is False, or `older_than` is no timedelta.
            StoreError: what was queued before could not be written, or the store not be read.
        """
        if not isinstance(older_than, timedelta):
            raise EngineError(f"older_than must be a timedelta, not {type(older_than).__name__}")
        store = self.store
        self.flush()
        return logits_files.remove_unused(self._logits_folder, store, older_than.total_seconds())

    def list_records(
        self, model_name: str | None = None, time_range: tuple[int, int] | None = None, limit: int | None = 100
    ) -> list[Entry]:
        """Return what is stored, newest first.

        Args:
            model_name: of this model only.
            time_range: served between these times, in nanoseconds since 1970, both included.
            limit: at most so many.

        Raises:
            EngineError: `config.enabled` is False, or `time_range` is no pair of such times.
            StoreError: what was queued before could not be written, or the store not be read.
        """
        since, until = (None, None) if time_range is None else query_times(time_range)
        store = self.store
        self.flush()
        return list(store.entries(Query(model=model_name, since=since, until=until, limit=limit, newest_first=True)))

    def get_stats(self) -> dict[str, Any]:
        """Return how much is stored and what became of what was queued.

        `store.num_records` counts what is on the disk, of all processes; `io` is None with `IOMode.SYNC`.
        """
        if self._store is None:
            return {"enabled": False}
        io = None if self._writer is None else vars(self._writer.counters)
        return {
            "enabled": True,
            "store": {"num_records": self._store.count(), "file_bytes": self._store.path.stat().st_size},
            "io": io,
        }

    def flush(self) -> None:
        """Return when all that was given to `store_trajectory` is on the disk.

        Raises:
            StoreError: it could not be written.
            ConflictError: it is, but for trajectories whose request id is taken by a different one; said once.
        """
        if self._writer is not None:
            self._writer.flush()

    def shutdown(self) -> None:
        """Flush and close; doing so twice is nothing.

        Raises:
            StoreError: as by `flush`.
        """
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._store is not None:
                self._store.close()

    close = shutdown

    def _put_with_logits(self, store: Store, record: Record, logits: CapturedLogits) -> None:
        """Put the file where it belongs, then the record, so that no record lacks its logits."""
        digest = logits.reference.digest
        path = logits_files.path_of(self._logits_folder, record.request_id, digest)
        was_there = path.exists()
        logits_files.put(logits, path)
        try:
            store.put(record)
        except BaseException:
            used = logits_files.is_used(store, record.request_id, digest)
            if not (was_there if used is None else used):
                # Back to the capture, so that it can be stored again, or goes with it.
                move_atomically(path, logits.path)
            raise

    def __enter__(self) -> DiffTraceEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()


def _label(request_id: object) -> str:
    return f"request '{request_id}'"


def _record(captured: TrajectoryRecord, logits: CapturedLogits | None) -> Record:
    assert captured.trajectory is not None
    about = {} if logits is None else logits_files.metadata_of(logits.reference.digest, logits.steps)
    return Record(
        captured.request_id,
        captured.trajectory,
        captured.generated_tokens,
        captured.model_name or None,
        {**captured.metadata, **about},
        captured.created_at,
    )
