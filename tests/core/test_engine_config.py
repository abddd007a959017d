"""Settings either have their effect or are refused by name."""

from __future__ import annotations

import pytest

from difftrace.core.engine_config import CaptureGranularity, CompressionMode, DiffTraceConfig, check_config
from difftrace.core.errors import EngineError


def test_the_defaults_and_the_minimal_configuration_are_honest() -> None:
    check_config(DiffTraceConfig())
    check_config(DiffTraceConfig.minimal())
    assert DiffTraceConfig.minimal().capture.granularity is CaptureGranularity.TOKENS_ONLY


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("capture", "capture_random_state", True),
        ("capture", "capture_timestamps", True),
        ("capture", "capture_every_n_steps", 2),
        ("capture", "capture_every_n_steps", True),
        ("compression", "mode", CompressionMode.DIFF_LOSSY),
        ("compression", "zstd_level", 19),
        ("compression", "lossy_error_bound", 0.1),
        ("io", "num_workers", 4),
        ("io", "flush_interval_ms", 100),
        ("store", "max_records", 10),
        ("distributed", "enabled", True),
        ("distributed", "rank", 1),
    ],
)
def test_a_value_that_could_not_have_its_effect_is_refused_by_name(part, name, value) -> None:
    config = DiffTraceConfig()
    setattr(getattr(config, part), name, value)
    with pytest.raises(EngineError, match=rf"^{part}\.{name} is .*, but can only be .* here: "):
        check_config(config)


@pytest.mark.parametrize("made", [DiffTraceConfig.full(), DiffTraceConfig.debug()])
def test_logits_are_refused_with_the_way_to_record_them(made) -> None:
    with pytest.raises(EngineError, match=r"FULL_LOGITS.*record=\"logits\""):
        check_config(made)


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
