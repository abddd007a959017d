"""Models that misbehave to order, and baselines that were changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel
from difftrace.models.llada import LLaDAModel, ModelOutput


@dataclass(frozen=True)
class Call:
    """One forward pass: its number from 0, its ids [B, L], its mask, and the logits [B, L, V] a sound model gives."""

    number: int
    ids: Tensor
    mask: Tensor | None
    logits: Tensor


class Misbehaving(nn.Module):
    """A model whose logits are what `change` makes of a sound model's."""

    def __init__(self, sound: LLaDAModel, change: Callable[[Call], Tensor], ignores_mask: bool) -> None:
        super().__init__()
        self.sound, self.config = sound, sound.config
        self.change, self.ignores_mask = change, ignores_mask
        self.calls = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> ModelOutput:
        logits = self.sound(input_ids, None if self.ignores_mask else attention_mask).logits
        call = Call(self.calls, input_ids, attention_mask, logits)
        self.calls += 1
        return ModelOutput(self.change(call))


Misbehave = Callable[..., LoadedModel]


@pytest.fixture
def misbehaving(reference_model: LoadedModel) -> Misbehave:
    """Return the reference model with its logits changed by a function of `Call`."""

    def make(change: Callable[[Call], Tensor] = lambda call: call.logits, ignores_mask: bool = False) -> LoadedModel:
        return replace(reference_model, model=Misbehaving(reference_model.model, change, ignores_mask))

    return make


@pytest.fixture(scope="session")
def with_trajectory() -> Callable[..., Baseline]:
    """Return what changes a baseline's sequence, which loses its evidence."""

    def change(golden: Baseline, index: int, **changes: Any) -> Baseline:
        records = list(golden.sequences)
        changed = replace(records[index].trajectory, **changes)
        records[index] = replace(records[index], trajectory=changed, evidence=None)
        return replace(golden, sequences=tuple(records))

    return change


@pytest.fixture(autouse=True)
def _settings_stay() -> Iterator[None]:
    """Whatever a test runs, thread count and attention backends are put back."""
    before = (torch.get_num_threads(), torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled())
    yield
    assert before == (
        torch.get_num_threads(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
    )
