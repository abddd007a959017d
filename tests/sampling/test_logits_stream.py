"""All logits of a run, written to a file as it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difftrace.core.errors import LogitsError, SamplerError, WriteError
from difftrace.core.logits_codec import Lossy, Top
from difftrace.core.logits_file import open_logits
from difftrace.core.logits_writer import LogitsWriter
from difftrace.models import LoadedModel
from difftrace.sampling import LogitsTarget, generate

SHAPE: dict[str, Any] = {"steps": 3, "gen_length": 4, "block_length": 4, "record": "logits"}
PROMPT, MASK = torch.tensor([[300, 300, 5], [1, 2, 3]]), torch.tensor([[0, 0, 1], [1, 1, 1]])


@pytest.fixture(params=[32 << 20, 1], ids=["buffers of a step", "buffers of a position"])
def buffers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difftrace.sampling.logits_stream._BUFFER_BYTES", request.param)
    if request.param == 1:
        monkeypatch.setattr("difftrace.core.logits_layout._CHUNK_VALUES", 1)


@pytest.mark.usefixtures("buffers")
@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
def test_the_file_holds_what_is_otherwise_kept_in_memory(
    conformance_model: LoadedModel, tmp_path: Path, cfg_scale: float
) -> None:
    settings = {**SHAPE, "attention_mask": MASK, "cfg_scale": cfg_scale}
    kept = generate(conformance_model.model, PROMPT, **settings)
    path = tmp_path / "run.logits"
    sent = generate(conformance_model.model, PROMPT, logits_to=path, **settings)
    assert torch.equal(sent.tokens, kept.tokens)
    assert sent.trajectories == kept.trajectories
    assert sent.evidence == kept.evidence
    assert sent.logits == []
    file = open_logits(path)
    assert sent.logits_file is not None
    assert (sent.logits_file.path, sent.logits_file.reference) == (path, file.reference)
    for row, expected in zip(file.rows, kept.logits, strict=True):
        assert np.array_equal(np.stack(list(row)), expected.numpy())


@pytest.mark.usefixtures("buffers")
def test_it_survives_models_that_return_the_same_memory_time_and_again(
    scripted: Callable[..., Any], tmp_path: Path
) -> None:
    memory = torch.zeros(1, 5, 10, dtype=torch.bfloat16)
    model = scripted(lambda ids, forward: memory.fill_(forward))
    generate(model, torch.tensor([[1]]), logits_to=str(tmp_path / "run.logits"), **SHAPE)
    row = open_logits(tmp_path / "run.logits").rows[0]
    assert row.file.layout.dtype == "bfloat16"
    assert [float(step[0, 4, 9]) for step in row] == [0, 1, 2]


def test_a_slow_disk_holds_the_run_up_and_takes_no_more_memory(
    scripted: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[int] = []
    forwards, written = 0, 0
    stuck = threading.Event()
    write = LogitsWriter.add

    def add(writer: LogitsWriter, bits: Any) -> None:
        nonlocal written
        # Goes on as soon as the run can, which waits for a buffer, cannot; it never gets further ahead than this.
        stuck.wait(0.05)
        write(writer, bits)
        written += 1

    def answer(ids: Tensor, forward: int) -> Tensor:
        nonlocal forwards
        forwards += 1
        ahead.append(forwards - 1 - written)
        return torch.zeros(1, 17, 10)

    monkeypatch.setattr("difftrace.core.logits_writer.LogitsWriter.add", add)
    settings = {**SHAPE, "steps": 16, "gen_length": 16, "block_length": 16}
    generate(scripted(answer), torch.tensor([[1]]), logits_to=tmp_path / "run.logits", **settings)
    assert max(ahead) <= 4
    assert written == 16


@pytest.mark.parametrize("method", [Lossy(0.1), Top(3)])
def test_the_method_is_the_one_asked_for(constant_model: Any, tmp_path: Path, method: Lossy | Top) -> None:
    path = tmp_path / "run.logits"
    generate(constant_model, torch.tensor([[1]]), logits_to=LogitsTarget(path, method), **SHAPE)
    assert open_logits(path).method == method


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "difftrace-logits"]


def test_a_run_that_raises_leaves_neither_file_nor_thread(scripted: Callable[..., Any], tmp_path: Path) -> None:
    def answer(ids: Tensor, forward: int) -> Tensor:
        if forward == 2:
            raise RuntimeError("the model broke")
        return torch.zeros(1, 5, 10)

    path = tmp_path / "run.logits"
    path.write_bytes(b"of an earlier run")
    with pytest.raises(RuntimeError, match="the model broke"):
        generate(scripted(answer), torch.tensor([[1]]), logits_to=path, **SHAPE)
    assert [file.name for file in tmp_path.iterdir()] == ["run.logits"]
    assert path.read_bytes() == b"of an earlier run"
    assert _threads() == []


@pytest.mark.usefixtures("buffers")
def test_a_file_that_cannot_be_written_ends_the_run(constant_model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="could not be written"):
        generate(constant_model, torch.tensor([[1]]), logits_to=tmp_path / "file" / "run.logits", **SHAPE)
    assert _threads() == []


@pytest.mark.usefixtures("buffers")
def test_an_error_of_the_encoder_ends_the_run_and_leaves_nothing(
    constant_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("difftrace.core.logits_writer.LogitsWriter._add_chunk", full)
    with pytest.raises(WriteError, match="No space left on device"):
        generate(constant_model, torch.tensor([[1]]), logits_to=tmp_path / "run.logits", **SHAPE)
    assert list(tmp_path.iterdir()) == []
    assert _threads() == []


def test_what_cannot_be_recorded_is_refused_in_one_line(
    constant_model: Any, scripted: Callable[..., Any], tmp_path: Path
) -> None:
    prompt = torch.tensor([[1]])
    with pytest.raises(SamplerError, match="record='evidence' keeps no logits to go to a file"):
        generate(constant_model, prompt, logits_to=tmp_path / "a.logits", **{**SHAPE, "record": "evidence"})
    with pytest.raises(LogitsError, match=r"no name of a file of logits"):
        generate(constant_model, prompt, logits_to=tmp_path / "a.bin", **SHAPE)
    with pytest.raises(LogitsError, match="largest 11 logits cannot be recorded of a vocabulary of 10"):
        generate(constant_model, prompt, logits_to=LogitsTarget(tmp_path / "a.logits", Top(11)), **SHAPE)
    dtypes = iter((torch.float32, torch.bfloat16))
    model = scripted(lambda ids, forward: torch.zeros(1, 5, 10, dtype=next(dtypes)))
    with pytest.raises(SamplerError, match=r"change to torch\.bfloat16"):
        generate(model, prompt, logits_to=tmp_path / "a.logits", **SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
def test_on_a_device_copies_arrive_before_they_are_written(tmp_path: Path) -> None:
    memory = torch.zeros(1, 68, 50_000, dtype=torch.bfloat16, device="cuda")

    class Model:
        class config:  # noqa: N801
            mask_token_id = 0
            eos_token_id = None

        device = memory.device
        forwards = 0

        def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
            type(self).forwards += 1
            memory.fill_(self.forwards)
            return type("Output", (), {"logits": memory})

    path = tmp_path / "run.logits"
    prompt = torch.ones(1, 4, dtype=torch.long, device="cuda")
    generate(Model(), prompt, steps=64, gen_length=64, block_length=64, record="logits", logits_to=path)
    for step, values in enumerate(open_logits(path).rows[0]):
        assert values.min() == values.max() == step + 1
