"""The examination as a whole: what it runs, in which order, and what it hands back."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from difftrace.core.doctor import PROBES, ProbeResult, Surroundings
from difftrace.core.schemas import violation
from difftrace.models import load_model
from difftrace.models.reference import reference_model_path
from difftrace.verification.doctor import examine


def test_results_come_as_they_are_found_after_what_they_were_found_on(misbehaving) -> None:
    heard: list[Surroundings | ProbeResult] = []
    calls_before: list[int] = []
    loaded = misbehaving()

    def started(around: Surroundings) -> None:
        calls_before.append(loaded.model.calls)
        heard.append(around)

    report = examine(loaded, ("dtype", "batch"), started=started, finished=heard.append)
    assert calls_before == [0]
    assert heard == [report.surroundings, *report.results]
    assert [result.probe for result in report.results] == ["batch", "batch", "dtype"]
    assert violation("doctor", json.loads(json.dumps(report.to_json(), allow_nan=False))) is None


def test_what_was_left_out_is_not_in_the_report(misbehaving) -> None:
    report = examine(misbehaving(), ())
    assert report.results == ()
    assert report.to_json()["probes"] == []


def test_the_surroundings_are_those_that_the_probes_run_in(misbehaving) -> None:
    around = examine(misbehaving(), ()).surroundings
    assert (around.model, around.revision, around.dtype, around.device) == ("reference", None, "float32", "cpu")
    assert around.settings["threads"] == 1
    assert around.fingerprint["deterministic_algorithms"] == "error"
    assert around.fingerprint["threads"] == 1
    switches = {switch.name: switch for switch in around.status.switches}
    assert around.status.active
    assert switches["threads"].requested == 1
    assert switches["attention_backend"].in_force


def test_without_a_base_there_is_nothing_to_report(misbehaving) -> None:
    def change(call) -> Tensor:
        raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        examine(misbehaving(change), PROBES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
def test_an_accelerator_is_examined_like_a_cpu() -> None:
    report = examine(load_model(reference_model_path(), device="cuda"))
    repeats = [result.verdict for result in report.results if result.probe == "repeat"]
    assert repeats == ["bit-equal", "bit-equal"]
    assert [result for result in report.results if result.verdict == "not run" and not result.unavailable] == []
