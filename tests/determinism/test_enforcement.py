"""Inside `enforce` one machine repeats itself; outside, nothing has changed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import difftrace
from difftrace.determinism.enforcement import enforce


def _settings() -> dict[str, Any]:
    """Everything `enforce` touches, read back."""
    matmul, mkldnn = torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cuda_matmul": getattr(matmul, "fp32_precision", None),
        "cpu_matmul": getattr(mkldnn, "fp32_precision", None),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
    }


@pytest.fixture
def _restored() -> Iterator[None]:
    """Undo what a test itself changes."""
    precision = torch.get_float32_matmul_precision()
    fine = [b for b in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)) if b is not None]
    before = [getattr(backend, "fp32_precision", None) for backend in fine]
    yield
    for backend, value in zip(fine, before, strict=True):
        if value is not None:
            backend.fp32_precision = "ieee"
    torch.set_float32_matmul_precision(precision)
    for backend, value in zip(fine, before, strict=True):
        if value is not None:
            backend.fp32_precision = value
    torch.set_deterministic_debug_mode("default")


def test_the_settings_are_in_force_inside() -> None:
    with enforce():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()


def _plain() -> None:
    pass


def _warn_only() -> None:
    torch.set_deterministic_debug_mode("warn")


def _medium() -> None:
    torch.set_float32_matmul_precision("medium")


def _per_backend() -> None:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has no precision per backend")
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("prepare", [_plain, _warn_only, _medium, _per_backend])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back_also_after_an_exception(prepare: Callable[[], None], fails: bool) -> None:
    prepare()
    before = _settings()
    try:
        with enforce(seed=7):
            assert torch.get_float32_matmul_precision() == "highest"
            random.random(), np.random.rand(), torch.rand(3)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert _settings() == before


def test_all_three_generators_start_from_the_seed() -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        with enforce(seed):
            return random.random(), float(np.random.rand()), float(torch.rand(1))

    first, again, other = draw(3), draw(3), draw(4)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_seeds_beyond_numpys_range_are_accepted() -> None:
    with enforce(2**64 - 1):
        pass


def test_an_operation_without_a_deterministic_form_raises() -> None:
    index = torch.zeros(2, dtype=torch.long)
    with enforce(), pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(3).put_(index, torch.ones(2))


@pytest.mark.parametrize("preset", [None, ":16:8"])
def test_the_workspace_setting_is_supplied_where_missing_and_kept_where_given(
    monkeypatch: pytest.MonkeyPatch, preset: str | None
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if preset:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", preset)
    with enforce(profile="cuda"):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (preset or ":4096:8")
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == preset


def test_devices_that_are_not_in_use_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device))
    with enforce():
        pass
    assert asked == []


def test_it_nests() -> None:
    before = _settings()
    with enforce(1):
        with enforce(2):
            pass
        assert torch.are_deterministic_algorithms_enabled()
    assert _settings() == before


def test_the_package_offers_it_at_its_top() -> None:
    assert difftrace.enforce is enforce


def test_threads_are_set_where_asked_for_and_put_back() -> None:
    before = torch.get_num_threads()
    with enforce():
        assert torch.get_num_threads() == before
    with enforce(threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
