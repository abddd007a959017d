"""Settings have their effect or say that they have none; what would lose data is refused by name."""

from __future__ import annotations

import pytest

from difftrace.core.engine_config import (
    CaptureGranularity,
    CompressionMode,
    DiffTraceConfig,
    IOMode,
    check_config,
    logits_method,
)
from difftrace.core.errors import EngineError
from difftrace.core.logits_codec import Lossless, Lossy


def test_the_defaults_and_the_minimal_configuration_are_honest() -> None:
    check_config(DiffTraceConfig())
    check_config(DiffTraceConfig.minimal())
    assert DiffTraceConfig.minimal().capture.granularity is CaptureGranularity.TOKENS_ONLY


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("capture", "capture_every_n_steps", 2),
        ("capture", "capture_every_n_steps", True),
        ("compression", "lossy_error_mode", "rel"),
    ],
)
def test_a_value_that_would_lose_data_is_refused_by_name(part, name, value) -> None:
    config = DiffTraceConfig()
    setattr(getattr(config, part), name, value)
    with pytest.raises(EngineError, match=rf"^{part}\.{name} is .*, but can only be .*: "):
        check_config(config)


# What code written for the paper passes, its defaults among it.
@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("capture", "capture_random_state", True),
        ("capture", "capture_timestamps", True),
        ("compression", "mode", CompressionMode.NONE),
        ("compression", "zstd_level", 3),
        ("compression", "lossy_error_bound", 0.1),
        ("io", "num_workers", 2),
        ("io", "buffer_size_mb", 64),
        ("io", "flush_interval_ms", 100),
        ("io", "max_queue_size", 16),
        ("store", "max_records", 100_000),
        ("store", "index_in_memory", True),
        ("distributed", "world_size", 8),
        ("distributed", "rank", 7),
        ("distributed", "backend", "nccl"),
    ],
)
def test_a_setting_that_nothing_needs_takes_any_value_that_makes_sense(part, name, value) -> None:
    config = DiffTraceConfig()
    setattr(getattr(config, part), name, value)
    check_config(config)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("capture", "capture_random_state", 1),
        ("capture", "logits", "folder"),
        ("compression", "mode", "none"),
        ("compression", "zstd_level", 99),
        ("compression", "lossy_error_bound", 0.0),
        ("compression", "lossy_error_bound", float("nan")),
        ("compression", "lossy_error_bound", 10**400),
        ("io", "num_workers", 0),
        ("io", "max_queue_size", True),
        ("io", "flush_interval_ms", -1),
        ("store", "max_records", -5),
        ("store", "base_path", None),
        ("store", "base_path", 3),
        ("store", "base_path", b"folder"),
        ("store", "base_path", "a\0b"),
        ("distributed", "rank", -1),
        ("distributed", "enabled", 1),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(part, name, value) -> None:
    config = DiffTraceConfig()
    setattr(getattr(config, part), name, value)
    with pytest.raises(EngineError, match=rf"^{part}\.{name} "):
        check_config(config)


@pytest.mark.parametrize(
    ("made", "method", "mode"),
    [
        (DiffTraceConfig.full(), Lossy(1e-3), IOMode.ASYNC),
        (DiffTraceConfig.debug(), Lossless(), IOMode.SYNC),
    ],
)
def test_full_and_debug_capture_logits(made, method, mode) -> None:
    check_config(made)
    assert made.capture.granularity is CaptureGranularity.FULL_LOGITS
    assert (logits_method(made.compression), made.io.mode) == (method, mode)


def test_a_value_of_another_type_is_refused() -> None:
    config = DiffTraceConfig()
    config.capture.granularity = "tokens_only"
    with pytest.raises(EngineError, match=r"one of CaptureGranularity\.TOKENS_ONLY, "):
        check_config(config)
    with pytest.raises(EngineError, match="must be a DiffTraceConfig, not dict"):
        check_config({})


def test_a_misspelt_setting_is_an_error_at_once() -> None:
    config = DiffTraceConfig()
    with pytest.raises(AttributeError):
        config.capture.granularty = CaptureGranularity.TOKENS_ONLY
