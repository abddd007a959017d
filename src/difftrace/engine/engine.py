"""The engine: a provenance store behind the names of the DiffTrace paper's interface.

The interface is that of Gupta, "DiffTrace", HPAI4S'26 (github.com/raviguptaamd/difftrace, difftrace/engine.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from difftrace.core.captured import TrajectoryRecord
from difftrace.core.engine_config import DiffTraceConfig, IOMode, check_config
from difftrace.core.errors import DamagedError, EngineError
from difftrace.core.text import printable
from difftrace.engine.replay import ReplayResult, damaged_result, replay_record
from difftrace.store import BackgroundWriter, Entry, Query, Record, Store

FILE_NAME: Final = "provenance.difftrace"
"""Name of the store in the folder `config.store.base_path`."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class DiffTraceEngine:
    """Stores captured trajectories and replays them.

    One engine serves any number of threads and requests at once, each of which has a `TrajectoryCapture` of its own;
    several processes may use one folder, each with an engine of its own.

    With `IOMode.SYNC` a trajectory is on the disk when `store_trajectory` returns. With `IOMode.ASYNC`, the default, a
    thread writes it, and `flush`, `replay`, `shutdown`, the end of the interpreter and SIGTERM wait for that, as
    `difftrace.store.BackgroundWriter` describes.

    Args:
        config: see `difftrace.core.engine_config`; later changes of it have no effect.

    Raises:
        EngineError: a setting cannot have its effect.
        StoreError: the store cannot be opened.
    """

    def __init__(self, config: DiffTraceConfig | None = None) -> None:
        self.config = DiffTraceConfig() if config is None else config
        check_config(self.config)
        self._store: Store | None = None
        self._writer: BackgroundWriter | None = None
        if self.config.enabled:
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

    @property
    def store(self) -> Store:
        """The store, for all that an engine has no method for.

        Raises:
            EngineError: `config.enabled` is False.
        """
        if self._store is None:
            raise EngineError("this engine stores nothing, for its config has enabled=False")
        return self._store

    def store_trajectory(self, trajectory: TrajectoryRecord) -> Record | None:
        """Store what `end_trajectory` returned, and return it as the store keeps it; None with `enabled=False`.

        The same again changes nothing.

        Raises:
            EngineError: the capture has not ended.
            RecordError: the request id, or what was given with the request, cannot be stored as it is.
            ConflictError: a different trajectory has the request id; with `IOMode.ASYNC` raised by the next `flush`,
                `replay` or `shutdown` instead.
            StoreError: the disk fails, now or, with `IOMode.ASYNC`, since the last call.
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
        if self._store is None:
            return None
        record = Record(
            trajectory.request_id,
            trajectory.trajectory,
            trajectory.generated_tokens,
            trajectory.model_name or None,
            trajectory.metadata,
            trajectory.created_at,
        )
        if self._writer is None:
            self._store.put(record)
        else:
            self._writer.put(record)
        return record

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

    def list_records(
        self, model_name: str | None = None, time_range: tuple[int, int] | None = None, limit: int | None = 100
    ) -> list[Entry]:
        """Return what is stored, newest first.

        Args:
            model_name: of this model only.
            time_range: served between these times, in nanoseconds since 1970, both included.
            limit: at most so many.

        Raises:
            EngineError: `config.enabled` is False.
            StoreError: what was queued before could not be written, or the store not be read.
        """
        store = self.store
        self.flush()
        since, until = (None, None) if time_range is None else map(_moment, time_range)
        if until is not None:
            # The end of a query does not belong to it.
            until += timedelta(microseconds=1)
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

    def __enter__(self) -> DiffTraceEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()


def _moment(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
