"""The canary is equal where arithmetic is, differs where it is not, and leaves no trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional

from difftrace.determinism.canary import canary
from difftrace.determinism.enforcement import enforce

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_the_same_whatever_was_computed_before(dtype: torch.dtype) -> None:
    first = canary("cpu", dtype)
    kept = [torch.rand(size) for size in (3, 1001, 70_001)]
    torch.rand(65, 33) @ torch.rand(33, 17)
    assert canary("cpu", dtype) == first
    assert first.startswith("sha256:")
    assert len(kept) == 3


def test_every_type_has_its_own_and_fp32_stands_for_what_is_no_type_to_compute_in() -> None:
    assert len({canary("cpu", dtype) for dtype in DTYPES}) == len(DTYPES)
    assert canary("cpu", torch.int8) == canary("cpu", None) == canary("cpu", torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strict_determinism_has_nothing_against_it_and_it_changes_nothing(
    dtype: torch.dtype, settings_now: Callable[[], dict[str, Any]]
) -> None:
    with enforce(seed=3):
        before = settings_now()
        canary("cpu", dtype)
        assert settings_now() == before


def test_default_type_and_default_device_have_no_part_in_it() -> None:
    expected = canary()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert canary() == expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_another_attention_backend_is_another_canary(dtype: torch.dtype) -> None:
    with enforce(attention="math"):
        plain = canary("cpu", dtype)
    with enforce(attention="flash"):
        assert canary("cpu", dtype) != plain


def test_a_lowered_precision_is_another_canary(precision_undone: Callable[[], None]) -> None:
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("on a CPU the setting is heeded by oneDNN alone, and where it has bf16")
    expected = canary()
    torch.set_float32_matmul_precision("medium")
    assert canary() != expected


def test_another_thread_count_is_another_canary(one_thread: None) -> None:
    expected = {dtype: canary("cpu", dtype) for dtype in (torch.float32, torch.bfloat16)}
    torch.set_num_threads(2)
    for dtype, alone in expected.items():
        assert canary("cpu", dtype) != alone


def test_what_the_settings_refuse_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("No available kernel. Aborting execution.")

    expected = canary()
    monkeypatch.setattr(functional, "scaled_dot_product_attention", refuse)
    refused = canary()
    assert refused != expected
    assert refused == canary()


def test_a_device_without_memory_left_is_no_property_of_its_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(functional, "scaled_dot_product_attention", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        canary()


_REPORT = """
import json
import torch
torch.set_num_threads(1)
from difftrace.determinism.canary import canary
print(json.dumps([canary("cpu", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]))
"""


def _in_another_process(**variables: str) -> list[str]:
    command = [sys.executable, "-c", _REPORT]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_it_is_equal_in_another_process(one_thread: None) -> None:
    assert _in_another_process() == [canary("cpu", dtype) for dtype in DTYPES[:3]]


def test_another_instruction_set_is_another_canary(one_thread: None) -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no other instruction set to fall back to")
    here = [canary("cpu", dtype) for dtype in DTYPES[:3]]
    there = _in_another_process(ATEN_CPU_CAPABILITY="default")
    assert all(one != other for one, other in zip(here, there, strict=True))
