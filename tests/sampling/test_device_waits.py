"""The loop never waits for the device: a run has as many read-backs with one step as with many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from difftrace.models import LoadedModel
from difftrace.models.config import LLaDAConfig
from difftrace.models.llada import LLaDAModel
from difftrace.sampling import SamplerArguments, generate
from difftrace.sampling.evidence import EvidenceRecorder
from difftrace.sampling.llada import Record, _denoise

SETTINGS = [
    {"tie_break": tie_break, "remasking": remasking, "temperature": temperature, "cfg_scale": cfg_scale}
    for tie_break in ("stable", "upstream")
    for remasking, temperature, cfg_scale in (("low_confidence", 0.0, 0.0), ("random", 0.7, 1.5))
]
SETTINGS += [{**SETTINGS[1], "noise": "portable", "seed": 5}]


class _ReadBacks(TorchDispatchMode):
    """Counts operations whose result the host must wait for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in self.WAITING
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """Counts copies to the host, which cost nothing on the CPU and therefore reach no dispatcher there."""

    COPYING = (Tensor.cpu, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__int__, Tensor.__float__)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in self.COPYING
        return func(*args, **(kwargs or {}))


def _waits(model: LLaDAModel, steps: int, settings: dict[str, Any], record: Record) -> tuple[int, int]:
    prompt, mask = torch.tensor([[300, 5, 310], [1, 2, 3]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    with _Copies() as copies, _ReadBacks() as read_backs:
        generate(
            model, prompt, attention_mask=mask, steps=steps, gen_length=16, block_length=8,
            logits_eos_inf=True, confidence_eos_eot_inf=True, record=record,
            **{"seed": 0, **settings},
        )  # fmt: skip
    return copies.count, read_backs.count


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("record", ["decisions", "evidence", "logits"])
def test_more_steps_do_not_mean_more_waits(
    conformance_model: LoadedModel, settings: dict[str, Any], record: Record
) -> None:
    few, many = (_waits(conformance_model.model, steps, settings, record) for steps in (2, 16))
    assert few[0] > 0
    assert few[1] > 0
    assert few == many


def test_a_file_of_logits_does_not_mean_more_waits(conformance_model: LoadedModel, tmp_path: Path) -> None:
    settings = {**SETTINGS[1], "logits_to": tmp_path / "run.logits"}
    few, many = (_waits(conformance_model.model, steps, settings, "logits") for steps in (2, 16))
    assert few == many


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("hold", [1, None], ids=["each step reduced at once", "steps reduced together"])
def test_the_loop_runs_on_tensors_that_hold_no_values(
    settings: dict[str, Any], conformance_model: LoadedModel, hold: int | None
) -> None:
    # On the meta device anything that needs a value raises: data-dependent shapes, branches and copies.
    config: LLaDAConfig = conformance_model.config
    with torch.device("meta"):
        model = LLaDAModel(config)
        canvas = torch.zeros((2, 20), dtype=torch.long)
        mask = torch.ones((2, 20), dtype=torch.long)
        recorder = EvidenceRecorder(torch.zeros(2, dtype=torch.long), hold)
    arguments = SamplerArguments(steps=6, gen_length=16, block_length=8, confidence_eos_eot_inf=True, **settings)
    with torch.no_grad():
        commits = _denoise(model, canvas, mask, 4, arguments, [recorder.add])
    assert [tuple(step.positions.shape) for step in commits] == [(2, 3), (2, 3), (2, 2)] * 2


def test_the_counters_see_what_would_wait() -> None:
    with _Copies() as copies, _ReadBacks() as read_backs:
        x = torch.ones(3)
        for wait in (x.cpu, x.tolist, x.sum().item, x.nonzero, lambda: bool(x[0]), x.numpy):
            before = copies.count + read_backs.count
            wait()
            assert copies.count + read_backs.count > before, wait
