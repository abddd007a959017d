"""The settings of `difftrace.core.engine_config`, where code written for the DiffTrace paper imports them from."""

from difftrace.core.engine_config import (
    CaptureConfig,
    CaptureGranularity,
    CompressionConfig,
    CompressionMode,
    DiffTraceConfig,
    DistributedConfig,
    IOConfig,
    IOMode,
    StoreConfig,
)

__all__ = [
    "CaptureConfig",
    "CaptureGranularity",
    "CompressionConfig",
    "CompressionMode",
    "DiffTraceConfig",
    "DistributedConfig",
    "IOConfig",
    "IOMode",
    "StoreConfig",
]
