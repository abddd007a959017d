"""A batch is as large as pays and as memory holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from difftrace.models import LoadedModel
from difftrace.verification import batch_size as module
from difftrace.verification.batch_size import batch_size, is_out_of_memory


def test_longer_canvases_and_more_rows_make_smaller_batches(reference_model: LoadedModel) -> None:
    sizes = {
        (rows, length): batch_size(reference_model, rows, length, noisy=False)
        for rows, length in ((1, 24), (1, 44), (1, 96), (4, 24), (2, 200), (1, 4096))
    }
    assert sizes == {(1, 24): 21, (1, 44): 11, (1, 96): 5, (4, 24): 5, (2, 200): 1, (1, 4096): 1}


def test_an_accelerator_scores_more_at_once(reference_model: LoadedModel) -> None:
    elsewhere = replace(reference_model, device=torch.device("mps"))
    assert batch_size(elsewhere, 1, 44, noisy=False) > 10 * batch_size(reference_model, 1, 44, noisy=False)


def test_a_batch_is_no_larger_than_memory_holds(reference_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1 << 22
    monkeypatch.setattr(module, "free_memory", lambda: free)
    plain = batch_size(reference_model, 1, 24, noisy=False)
    assert 1 < plain < 21
    assert batch_size(reference_model, 1, 24, noisy=True) < plain
    logits = 24 * reference_model.config.embedding_size * 4
    assert plain * logits < free
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    assert batch_size(reference_model, 1, 24, noisy=False) >= 1


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_memory_was_not_enough_are_told_from_others(error: BaseException, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one
