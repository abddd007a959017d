"""Settings of `difftrace.engine.DiffTraceEngine`, under the names of the DiffTrace paper's interface.

The interface is that of Gupta, "DiffTrace", HPAI4S'26 (github.com/raviguptaamd/difftrace, difftrace/utils/config.py).
Code written against it runs where that is honest. A setting that could not have its effect here has one value, the one
that tells what happens; any other is refused when an engine or a capture is made with it. A misspelt setting is an
AttributeError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

from difftrace.core.errors import EngineError


class CaptureGranularity(Enum):
    """What is captured of a step.

    Tokens are positions with what they took. Masks follow from them and are never stored: where they are captured,
    they are compared with what the tokens say. Logits are not captured through this interface.
    """

    TOKENS_ONLY = "tokens_only"
    TOKENS_AND_MASKS = "tokens_masks"
    FULL_LOGITS = "full_logits"


class CompressionMode(Enum):
    """How trajectories are encoded; there is one encoding, which is lossless."""

    NONE = "none"
    DIFF_LOSSLESS = "diff_lossless"
    DIFF_LOSSY = "diff_lossy"


class IOMode(Enum):
    """Whether `store_trajectory` waits until the trajectory is on the disk."""

    SYNC = "sync"
    ASYNC = "async"


@dataclass(slots=True)
class CaptureConfig:
    """What is captured; only `granularity` can be chosen."""

    granularity: CaptureGranularity = CaptureGranularity.TOKENS_AND_MASKS
    capture_random_state: bool = False
    capture_timestamps: bool = False
    capture_every_n_steps: int = 1


@dataclass(slots=True)
class CompressionConfig:
    """How it is encoded; nothing can be chosen."""

    mode: CompressionMode = CompressionMode.DIFF_LOSSLESS
    zstd_level: int | None = None
    lossy_error_bound: float | None = None
    lossy_error_mode: str = "abs"


@dataclass(slots=True)
class IOConfig:
    """How it is written.

    Attributes:
        mode: whether storing waits for the disk.
        max_queue_size: trajectories that may wait to be written; with so many, storing waits for one of them.
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
        base_path: a folder, created where missing; the store is the file `provenance.difftrace` in it.
        durability: as of `difftrace.store.Store`: "power" or "process".
    """

    base_path: Path | str = field(default_factory=lambda: Path("provenance_store"))
    durability: Literal["power", "process"] = "power"
    max_records: int | None = None
    index_in_memory: bool = False


@dataclass(slots=True)
class DistributedConfig:
    """Several ranks; nothing can be chosen."""

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
        """Logits too, which no capture takes yet; see `check_capture`."""
        return cls(capture=CaptureConfig(granularity=CaptureGranularity.FULL_LOGITS))

    @classmethod
    def debug(cls) -> DiffTraceConfig:
        """As `full`, and storing waits for the disk."""
        return cls(capture=CaptureConfig(granularity=CaptureGranularity.FULL_LOGITS), io=IOConfig(mode=IOMode.SYNC))


_LOSSLESS: Final = "trajectories have one lossless encoding, and logits are not captured here"
_RANKS: Final = "every rank decides the same, so capture and store on rank 0 alone"

# For each setting without a choice its only value, and why.
_CAPTURE: Final = {
    "capture_random_state": (
        False,
        "states of random generators are not stored, for no replay needs them; pass the seed in model_config",
    ),
    "capture_timestamps": (False, "a trajectory has the time of its beginning alone, as created_at of its record"),
    "capture_every_n_steps": (1, "with steps left out the output could not be reconstructed"),
}
_COMPRESSION: Final = {
    "mode": (CompressionMode.DIFF_LOSSLESS, _LOSSLESS),
    "zstd_level": (None, "the encoding chooses for itself what is smallest"),
    "lossy_error_bound": (None, _LOSSLESS),
    "lossy_error_mode": ("abs", _LOSSLESS),
}
_IO: Final = {
    "num_workers": (1, "a store has one writer at a time, which writes many trajectories at once"),
    "buffer_size_mb": (None, "the queue is bounded by max_queue_size, a number of trajectories"),
    "flush_interval_ms": (0, "what is queued is written at once; flush() waits for it"),
}
_STORE: Final = {
    "max_records": (None, "a store has no limit, and none of its records is ever dropped; delete through engine.store"),
    "index_in_memory": (False, "the index is in the store's file, which other processes share"),
}
_DISTRIBUTED: Final = {
    "enabled": (False, _RANKS),
    "world_size": (1, _RANKS),
    "rank": (0, _RANKS),
    "backend": (None, _RANKS),
    "coordinator_rank": (0, _RANKS),
}


def check_capture(config: CaptureConfig) -> None:
    """Refuse settings of a capture that could not have their effect.

    Raises:
        EngineError: there is one.
    """
    _check_type("capture", config, CaptureConfig)
    _check_choice("capture.granularity", config.granularity, CaptureGranularity)
    if config.granularity is CaptureGranularity.FULL_LOGITS:
        raise EngineError(
            "capture.granularity is FULL_LOGITS, but a capture takes no logits; record them with"
            ' difftrace.sampling.generate(record="logits"), or use TOKENS_AND_MASKS'
        )
    _check_fixed("capture", config, _CAPTURE)


def check_config(config: DiffTraceConfig) -> None:
    """Refuse settings that could not have their effect.

    Raises:
        EngineError: there is one.
    """
    _check_type("config", config, DiffTraceConfig)
    check_capture(config.capture)
    _check_type("compression", config.compression, CompressionConfig)
    _check_fixed("compression", config.compression, _COMPRESSION)
    _check_type("io", config.io, IOConfig)
    _check_choice("io.mode", config.io.mode, IOMode)
    _check_fixed("io", config.io, _IO)
    _check_type("store", config.store, StoreConfig)
    _check_fixed("store", config.store, _STORE)
    _check_type("distributed", config.distributed, DistributedConfig)
    _check_fixed("distributed", config.distributed, _DISTRIBUTED)


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise EngineError(f"{name} must be a {expected.__name__}, not {type(value).__name__}")


def _check_choice(name: str, value: object, choices: type[Enum]) -> None:
    if not isinstance(value, choices):
        names = ", ".join(f"{choices.__name__}.{choice.name}" for choice in choices)
        raise EngineError(f"{name} is {value!r}; it must be one of {names}")


def _check_fixed(part: str, config: object, fixed: dict[str, tuple[Any, str]]) -> None:
    for name, (only, reason) in fixed.items():
        value = getattr(config, name)
        if value != only or isinstance(value, bool) != isinstance(only, bool):
            raise EngineError(f"{part}.{name} is {value!r}, but can only be {only!r} here: {reason}")
