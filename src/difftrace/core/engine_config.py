"""Settings of `difftrace.engine.DiffTraceEngine`, under the names of the DiffTrace paper's interface.

The interface is that of Gupta, "DiffTrace", HPAI4S'26 (github.com/raviguptaamd/difftrace, difftrace/utils/config.py).
Code written against it runs where that is honest: a setting that nothing here needs takes any value that makes sense,
and its class says that it has no effect. What would silently lose data is refused when an engine or a capture is made
with it. A misspelt setting is an AttributeError.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

from difftrace.core.errors import EngineError
from difftrace.core.logits_codec import Lossless, Lossy, Method
from difftrace.core.logits_spool import LogitsPlan


class CaptureGranularity(Enum):
    """What is captured of a step.

    Tokens are positions with what they took. Masks follow from them and are never stored: where they are captured,
    they are compared with what the tokens say. Full logits are masks too, and what the model returned.
    """

    TOKENS_ONLY = "tokens_only"
    TOKENS_AND_MASKS = "tokens_masks"
    FULL_LOGITS = "full_logits"


class CompressionMode(Enum):
    """How logits are kept: exactly, which NONE and DIFF_LOSSLESS mean alike, or within a bound that each of them keeps.

    Trajectories have one encoding, which is lossless and always compressed.
    """

    NONE = "none"
    DIFF_LOSSLESS = "diff_lossless"
    DIFF_LOSSY = "diff_lossy"


class IOMode(Enum):
    """Whether `store_trajectory` waits until the trajectory is on the disk."""

    SYNC = "sync"
    ASYNC = "async"


@dataclass(slots=True)
class CaptureConfig:
    """What is captured.

    Attributes:
        granularity: how much of a step.
        capture_random_state: no effect: no state of a random generator is stored, for replay draws nothing and needs
            none. To run a model again, pass its seed in `model_config`.
        capture_timestamps: no effect: a trajectory has the time of its beginning alone, `created_at` of its record.
        capture_every_n_steps: 1. With steps left out the output could not be reconstructed.
        logits: where logits go while a loop runs. An engine sets it when it is made with this config; without one they
            go to the system's folder for temporary files, exactly.
    """

    granularity: CaptureGranularity = CaptureGranularity.TOKENS_AND_MASKS
    capture_random_state: bool = False
    capture_timestamps: bool = False
    capture_every_n_steps: int = 1
    logits: LogitsPlan | None = None


@dataclass(slots=True)
class CompressionConfig:
    """How logits are kept.

    Attributes:
        mode: exactly, or within a bound.
        zstd_level: no effect: every encoding chooses for itself.
        lossy_error_bound: with DIFF_LOSSY, how far a logit may be from what the model returned, in units of logits;
            otherwise without effect.
        lossy_error_mode: "abs". A bound relative to each logit ("rel") is not offered.
    """

    mode: CompressionMode = CompressionMode.DIFF_LOSSLESS
    zstd_level: int | None = None
    lossy_error_bound: float = 1e-3
    lossy_error_mode: str = "abs"


@dataclass(slots=True)
class IOConfig:
    """How it is written.

    Attributes:
        mode: whether storing waits for the disk.
        max_queue_size: trajectories that may wait to be written; with so many, storing waits for one of them.
        num_workers: no effect: a store has one writer at a time, which writes many trajectories at once.
        buffer_size_mb: no effect: the queue is bounded by `max_queue_size`.
        flush_interval_ms: no effect: what is queued is written at once.
    """

    mode: IOMode = IOMode.ASYNC
    max_queue_size: int = 1024
    num_workers: int = 1
    buffer_size_mb: int | None = None
    flush_interval_ms: int = 0


@dataclass(slots=True)
class StoreConfig:
    """Where it is written.

    Attributes:
        base_path: a folder, created where missing; the store is the file `provenance.difftrace` in it, logits are in
            its folder `logits`.
        durability: as of `difftrace.store.Store`: "power" or "process".
        max_records: no effect: a store has no limit, and none of its records is ever dropped.
        index_in_memory: no effect: the index is in the store's file, which other processes share.
    """

    base_path: Path | str = field(default_factory=lambda: Path("provenance_store"))
    durability: Literal["power", "process"] = "power"
    max_records: int | None = None
    index_in_memory: bool = False


@dataclass(slots=True)
class DistributedConfig:
    """Several ranks, each of which runs the model and must decide the same.

    Attributes:
        enabled: whether `store_trajectory` compares what all ranks captured, which all have to call then, and one of
            them stores it. For that torch.distributed's default group must be there when the engine is made.
        coordinator_rank: the one that stores.
        world_size: no effect: the group knows its size.
        rank: no effect: the group knows it.
        backend: no effect: the group's own, and gloo for what is compared.
    """

    enabled: bool = False
    world_size: int = 1
    rank: int = 0
    backend: str | None = None
    coordinator_rank: int = 0


@dataclass(slots=True)
class DiffTraceConfig:
    """All settings of an engine; `enabled=False` is an engine that stores nothing."""

    capture: CaptureConfig = field(default_factory=CaptureConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    io: IOConfig = field(default_factory=IOConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    enabled: bool = True

    @classmethod
    def minimal(cls) -> DiffTraceConfig:
        """Tokens alone, written in the background."""
        return cls(capture=CaptureConfig(granularity=CaptureGranularity.TOKENS_ONLY))

    @classmethod
    def full(cls) -> DiffTraceConfig:
        """Logits too, within 0.001 of what the model returned, written in the background."""
        return cls(
            capture=CaptureConfig(granularity=CaptureGranularity.FULL_LOGITS),
            compression=CompressionConfig(mode=CompressionMode.DIFF_LOSSY),
        )

    @classmethod
    def debug(cls) -> DiffTraceConfig:
        """Logits too, exactly, and storing waits for the disk."""
        return cls(
            capture=CaptureConfig(granularity=CaptureGranularity.FULL_LOGITS),
            compression=CompressionConfig(mode=CompressionMode.NONE),
            io=IOConfig(mode=IOMode.SYNC),
        )


# For settings that are numbers: the least they may be, and whether they may also be None.
_IO: Final = {"max_queue_size": (1, False), "num_workers": (1, False), "buffer_size_mb": (1, True)}
_DISTRIBUTED: Final = {"world_size": (1, False), "rank": (0, False), "coordinator_rank": (0, False)}
_ZSTD_LEVELS: Final = range(1, 23)


def check_capture(config: CaptureConfig) -> None:
    """Refuse settings of a capture that would lose data or mean nothing.

    Raises:
        EngineError: there is one.
    """
    _check_type("capture", config, CaptureConfig)
    _check_choice("capture.granularity", config.granularity, CaptureGranularity)
    _check_truth("capture.capture_random_state", config.capture_random_state)
    _check_truth("capture.capture_timestamps", config.capture_timestamps)
    every = config.capture_every_n_steps
    if every != 1 or isinstance(every, bool):
        raise EngineError(
            f"capture.capture_every_n_steps is {every!r}, but can only be 1: with steps left out the output could not"
            " be reconstructed"
        )
    if config.logits is not None:
        _check_type("capture.logits", config.logits, LogitsPlan)


def check_config(config: DiffTraceConfig) -> None:
    """Refuse settings that would lose data or mean nothing.

    Raises:
        EngineError: there is one.
    """
    _check_type("config", config, DiffTraceConfig)
    check_capture(config.capture)
    _check_type("compression", config.compression, CompressionConfig)
    _check_compression(config.compression)
    _check_type("io", config.io, IOConfig)
    _check_choice("io.mode", config.io.mode, IOMode)
    _check_numbers("io", config.io, _IO)
    interval = config.io.flush_interval_ms
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0 <= interval < math.inf:
        raise EngineError(f"io.flush_interval_ms is {interval!r}; it must be a number of at least 0")
    _check_type("store", config.store, StoreConfig)
    _check_folder("store.base_path", config.store.base_path)
    _check_numbers("store", config.store, {"max_records": (1, True)})
    _check_truth("store.index_in_memory", config.store.index_in_memory)
    _check_type("distributed", config.distributed, DistributedConfig)
    _check_truth("distributed.enabled", config.distributed.enabled)
    _check_numbers("distributed", config.distributed, _DISTRIBUTED)


def logits_method(config: CompressionConfig) -> Method:
    """Return how logits are kept."""
    return Lossy(float(config.lossy_error_bound)) if config.mode is CompressionMode.DIFF_LOSSY else Lossless()


def _check_compression(config: CompressionConfig) -> None:
    _check_choice("compression.mode", config.mode, CompressionMode)
    level = config.zstd_level
    if level is not None and (isinstance(level, bool) or level not in _ZSTD_LEVELS):
        raise EngineError(f"compression.zstd_level is {level!r}; it must be None or 1 to 22")
    bound = config.lossy_error_bound
    # Not math.inf, below which integers are that no float can be.
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound <= sys.float_info.max:
        raise EngineError(f"compression.lossy_error_bound is {bound!r}; it must be a finite number above 0")
    if config.lossy_error_mode != "abs":
        raise EngineError(
            f"compression.lossy_error_mode is {config.lossy_error_mode!r}, but can only be 'abs': the bound is in units"
            " of logits and holds for each of them"
        )


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise EngineError(f"{name} must be a {expected.__name__}, not {type(value).__name__}")


def _check_choice(name: str, value: object, choices: type[Enum]) -> None:
    if not isinstance(value, choices):
        names = ", ".join(f"{choices.__name__}.{choice.name}" for choice in choices)
        raise EngineError(f"{name} is {value!r}; it must be one of {names}")


def _check_truth(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise EngineError(f"{name} is {value!r}; it must be True or False")


def _check_folder(name: str, value: object) -> None:
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise EngineError(f"{name} must be a text or a Path, not {type(value).__name__}")
    if "\0" in os.fspath(value):
        raise EngineError(f"{name} is {value!r}, which holds a NUL character; choose another folder")


def _check_numbers(part: str, config: Any, least: Mapping[str, tuple[int, bool]]) -> None:
    for name, (fewest, optional) in least.items():
        value = getattr(config, name)
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < fewest:
            also = " or None" if optional else ""
            raise EngineError(f"{part}.{name} is {value!r}; it must be an integer of at least {fewest}{also}")
