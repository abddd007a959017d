"""A second copy of a model is made only where it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from difftrace.core.errors import ProbeError
from difftrace.models import LoadedModel
from difftrace.verification import second_copy

GIB = 2**30


@pytest.fixture
def big(reference_model: LoadedModel) -> LoadedModel:
    """A model of 2**30 parameters, none of them in memory."""
    return replace(reference_model, model=nn.Linear(2**15, 2**15, bias=False, device="meta"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the files in which Linux tells."""
    monkeypatch.setattr(second_copy, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(second_copy, "_CGROUP", tmp_path)
    return tmp_path


def system(folder: Path, free: int) -> None:
    (folder / "meminfo").write_text(f"MemTotal: {free // 512} kB\nMemFree: 1 kB\nMemAvailable:   {free // 1024} kB\n")


def container(folder: Path, limit: int | str, taken: int, cache: int = 0) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


@pytest.mark.parametrize(("dtype", "fits"), [(torch.bfloat16, True), (torch.float32, False)])
def test_weights_in_their_dtype_must_fit(machine: Path, big: LoadedModel, dtype: torch.dtype, fits: bool) -> None:
    system(machine, 3 * GIB)
    if fits:
        second_copy.require_second_copy(big, dtype)
    else:
        with pytest.raises(ProbeError, match=r"needs about 4\.5 GiB of memory and 3\.0 GiB are free"):
            second_copy.require_second_copy(big, dtype)


def test_a_container_may_leave_less_than_the_machine(machine: Path) -> None:
    system(machine, 8 * GIB)
    container(machine, limit=6 * GIB, taken=5 * GIB, cache=2 * GIB)
    assert second_copy.free_memory() == 3 * GIB
    container(machine, limit="max", taken=5 * GIB)
    assert second_copy.free_memory() == 8 * GIB


def test_where_nothing_tells_the_copy_may_try(machine: Path, big: LoadedModel) -> None:
    assert second_copy.free_memory() is None
    second_copy.require_second_copy(big, torch.float32)


def test_accelerators_speak_for_themselves(machine: Path, big: LoadedModel) -> None:
    system(machine, 0)
    second_copy.require_second_copy(replace(big, device=torch.device("cuda")), torch.float32)


def test_a_model_spread_over_devices_is_not_loaded_onto_one(machine: Path, big: LoadedModel) -> None:
    big.model.hf_device_map = {"": 0}
    with pytest.raises(ProbeError, match="spread over several devices"):
        second_copy.require_second_copy(replace(big, device=torch.device("cuda")), torch.float32)
