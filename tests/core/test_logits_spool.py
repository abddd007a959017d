"""Logits that a loop hands over are in the file bit for bit, and no file is left where they are not to be kept."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from difftrace.core import logits_spool
from difftrace.core.engine_config import CaptureConfig, CaptureGranularity
from difftrace.core.errors import EngineError, LogitsError, TrajectoryError, WriteError
from difftrace.core.logits_codec import Lossless, Lossy
from difftrace.core.logits_dtypes import DTYPES
from difftrace.core.logits_file import open_logits
from difftrace.core.logits_layout import LogitsLayout
from difftrace.core.logits_spool import LogitsPlan, LogitsSpool
from difftrace.core.logits_writer import save_logits
from difftrace.core.trajectory import TrajectoryCapture


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("announced", [0, 4, 200])
def test_tensors_are_kept_bit_for_bit_however_many_steps_were_announced(tmp_path, name, announced) -> None:
    torch = pytest.importorskip("torch")
    word = DTYPES[name].word
    # Every kind of bit pattern: NaN with payloads, infinities, subnormals.
    bits = np.random.default_rng(3).integers(0, 256, (4, 3, 50 * word.itemsize), dtype=np.uint8).view(word)
    spool = LogitsSpool(LogitsPlan(tmp_path), announced)
    signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[word.itemsize]
    for step in range(4):
        values = torch.from_numpy(bits[step].view(f"<i{word.itemsize}")).view(signed).view(getattr(torch, name))
        spool.add(step, values.unsqueeze(0))
    captured = spool.finish()
    file = open_logits(captured.path)
    file.check()
    assert captured.steps == (0, 1, 2, 3)
    assert np.array_equal(np.stack([file.rows[0].bits(step)[0] for step in range(4)]), bits)
    # The same as written by who knew the number of steps.
    layout = LogitsLayout(name, 4, 1, 50, (3,))
    known = save_logits(tmp_path / "known.logits", layout, Lossless(), [bits[:, None]])
    assert captured.reference.digest == file.digest == known.digest
    assert captured.path.read_bytes() == (tmp_path / "known.logits").read_bytes()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_arrays_are_kept_as_tensors_are(tmp_path, dtype) -> None:
    values = np.random.default_rng(0).normal(size=(2, 30)).astype(dtype)
    spool = LogitsSpool(LogitsPlan(tmp_path), 1)
    spool.add(0, values)
    captured = spool.finish()
    assert np.array_equal(open_logits(captured.path).rows[0][0][0], values)


def test_many_more_chunks_than_buffers_go_through(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(logits_spool, "_BUFFER_BYTES", 1)
    # 16 rows of 64 Ki values make a chunk, so that 33 take three, of which the last is short.
    values = np.random.default_rng(0).integers(-9, 9, (33, 1 << 16)).astype(np.float16)
    spool = LogitsSpool(LogitsPlan(tmp_path), 0)
    for step in range(3):
        spool.add(2 * step, values + np.float16(step))
    captured = spool.finish()
    file = open_logits(captured.path)
    assert captured.steps == (0, 2, 4)
    assert np.array_equal(file.rows[0][2][0], values + np.float16(2))


def test_what_the_loop_writes_over_is_kept_as_it_was(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    spool = LogitsSpool(LogitsPlan(tmp_path), 2)
    with torch.inference_mode():
        logits = torch.ones(4, 10)
        spool.add(0, logits)
        logits += 1
    again = torch.full((4, 10), 2.0, requires_grad=True)
    spool.add(1, again)
    captured = spool.finish()
    rows = open_logits(captured.path).rows[0]
    assert (rows[0] == 1).all()
    assert (rows[1] == 2).all()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.zeros((3, 5), np.float32), r"step 1 are float32 \[3, 5\], those of step 0 float32 \[4, 5\]"),
        (np.zeros((4, 5), np.float16), "step 1 are float16"),
        (np.zeros((2, 4, 5), np.float32), r"logits of step 1 must have the shape \[L, V\]"),
        (np.zeros(5, np.float32), r"logits of step 1 must have the shape \[L, V\]"),
    ],
)
def test_logits_of_another_shape_are_refused_by_step(tmp_path, second, message) -> None:
    spool = LogitsSpool(LogitsPlan(tmp_path), 2)
    spool.add(0, np.zeros((4, 5), np.float32))
    with pytest.raises(EngineError, match=message):
        spool.add(1, second)
    spool.discard()


def test_integers_are_no_logits(tmp_path) -> None:
    with pytest.raises(LogitsError, match="logits of int64 cannot be recorded"):
        LogitsSpool(LogitsPlan(tmp_path), 2).add(0, np.zeros((4, 5), np.int64))
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_is_discarded_or_forgotten_leaves_neither_file_nor_thread(tmp_path) -> None:
    before = threading.active_count()
    for forget in (False, True):
        spool = LogitsSpool(LogitsPlan(tmp_path), 2)
        spool.add(0, np.zeros((4, 5), np.float32))
        if not forget:
            spool.discard()
        del spool
        gc.collect()
        assert list(tmp_path.iterdir()) == []
        assert threading.active_count() == before


def test_a_captured_file_goes_with_what_refers_to_it(tmp_path) -> None:
    spool = LogitsSpool(LogitsPlan(tmp_path), 1)
    spool.add(0, np.zeros((4, 5), np.float32))
    captured = spool.finish()
    assert list(tmp_path.iterdir()) == [captured.path]
    del captured
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_an_error_of_a_later_step_or_the_end(tmp_path) -> None:
    folder = tmp_path / "taken"
    folder.write_bytes(b"")
    spool = LogitsSpool(LogitsPlan(folder), 0)
    # More steps than there are buffers: none may wait for ever.
    with contextlib.suppress(WriteError):
        for step in range(9):
            spool.add(step, np.zeros((4, 5), np.float32))
    with pytest.raises(WriteError, match="could not be written"):
        spool.finish()


def full(folder: Path) -> TrajectoryCapture:
    config = CaptureConfig(granularity=CaptureGranularity.FULL_LOGITS, logits=LogitsPlan(folder, Lossy(0.25)))
    capture = TrajectoryCapture(config)
    capture.begin_trajectory("a", [1], num_diffusion_steps=3, sequence_length=3)
    return capture


def test_a_capture_that_fails_or_is_discarded_leaves_no_file(tmp_path) -> None:
    for end in ("fails", "discarded"):
        capture = full(tmp_path)
        capture.capture_step(0, [9 if end == "fails" else 1], [5], logits=np.zeros((3, 8), np.float32))
        if end == "fails":
            with pytest.raises(TrajectoryError):
                capture.end_trajectory()
        else:
            capture.discard()
        assert list(tmp_path.iterdir()) == []
        capture.begin_trajectory("b", [1], sequence_length=3)
        assert capture.end_trajectory().logits is None


def test_steps_may_come_without_logits(tmp_path) -> None:
    capture = full(tmp_path)
    capture.capture_step(0, [1], [5])
    capture.capture_step(2, [2], [6], logits=np.full((3, 8), 0.1, np.float32))
    logits = capture.end_trajectory([1, 5, 6]).logits
    assert logits.steps == (2,)
    assert logits.reference.method == Lossy(0.25)
    assert np.abs(open_logits(logits.path).rows[0][0] - 0.1).max() <= 0.25


def test_other_granularities_do_not_look_at_logits() -> None:
    capture = TrajectoryCapture(CaptureConfig())
    capture.begin_trajectory("a", [1], sequence_length=3)
    capture.capture_step(0, [1], [5], logits="nothing of the kind")
    assert capture.end_trajectory().logits is None


def test_a_device_is_not_waited_for_and_its_logits_are_exact(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    spool = LogitsSpool(LogitsPlan(tmp_path), 8)
    kept = []
    with torch.cuda.stream(torch.cuda.Stream()):
        for step in range(8):
            logits = torch.randn(128, 126464, device="cuda", dtype=torch.bfloat16)
            kept.append(logits.clone())
            spool.add(step, logits)
            logits.zero_()
        captured = spool.finish()
    torch.cuda.synchronize()
    rows = open_logits(captured.path).rows[0]
    for step, logits in enumerate(kept):
        assert np.array_equal(rows.bits(step)[0], logits.view(torch.int16).cpu().numpy().view("<u2"))
