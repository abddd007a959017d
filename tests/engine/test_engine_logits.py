"""Logits are stored with their request, read back checked, and leave with it."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from difftrace.core.errors import ConflictError, EngineError, FormatError, NotStoredError, RecordError, StoreError
from difftrace.core.logits_codec import Lossless, Lossy
from difftrace.core.trajectory import TrajectoryCapture, TrajectoryRecord
from difftrace.engine import DiffTraceEngine
from difftrace.utils.config import CaptureConfig, CaptureGranularity, CompressionMode, DiffTraceConfig, IOMode

STEPS, LENGTH, VOCABULARY = 6, 16, 40

Captured = tuple[TrajectoryRecord, np.ndarray]


@pytest.fixture(params=[IOMode.SYNC, IOMode.ASYNC])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> DiffTraceConfig:
    made = DiffTraceConfig.debug()
    made.store.base_path = tmp_path / "kept"
    made.io.mode = request.param
    return made


def captured(config: CaptureConfig, request_id: str = "a", seed: int = 0, steps: range = range(STEPS)) -> Captured:
    """Capture a run of a position a step, with logits at `steps`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(STEPS, LENGTH, VOCABULARY)).astype(np.float32)
    capture = TrajectoryCapture(config)
    capture.begin_trajectory(request_id, [1] * 4, num_diffusion_steps=STEPS, sequence_length=LENGTH)
    for step in range(STEPS):
        tokens = [int(rng.integers(900))]
        capture.capture_step(step, [4 + step], tokens, logits=logits[step] if step in steps else None)
    return capture.end_trajectory(), logits


def files(config: DiffTraceConfig) -> list[Path]:
    folder = Path(config.store.base_path) / "logits"
    gc.collect()
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("request_id", ["a/../b ü", "x" * 300, "CON"])
def test_logits_come_back_as_the_model_returned_them(full, request_id) -> None:
    with DiffTraceEngine(full) as engine:
        record, logits = captured(full.capture, request_id)
        stored = engine.store_trajectory(record)
    with DiffTraceEngine(full) as engine:
        kept = engine.logits(request_id)
        assert kept.steps == tuple(range(STEPS))
        assert kept.file.method == Lossless()
        assert all(np.array_equal(kept[step], logits[step]) for step in range(STEPS))
        assert engine.store.get(request_id).metadata["logits.digest"] == kept.file.digest
        assert engine.store.get(request_id) == stored
    (file,) = files(full)
    assert len(file.name) < 100


def test_steps_without_logits_are_told_from_those_with(full) -> None:
    with DiffTraceEngine(full) as engine:
        record, logits = captured(full.capture, steps=range(1, STEPS, 2))
        engine.store_trajectory(record)
        kept = engine.logits("a")
        assert kept.steps == (1, 3, 5)
        assert np.array_equal(kept[3], logits[3])
        with pytest.raises(IndexError, match="no logits were captured at step 2"):
            kept[2]


@pytest.mark.parametrize("bound", [1e-3, 0.1])
def test_the_bound_of_lossy_logits_holds_however_the_capture_was_made(full, bound) -> None:
    full.compression.mode = CompressionMode.DIFF_LOSSY
    full.compression.lossy_error_bound = bound
    alone = CaptureConfig(granularity=CaptureGranularity.FULL_LOGITS)
    with DiffTraceEngine(full) as engine:
        for name, config in (("of the engine", full.capture), ("alone", alone)):
            record, logits = captured(config, name)
            engine.store_trajectory(record)
            engine.store_trajectory(record)
            kept = engine.logits(name)
            assert kept.file.method == Lossy(bound)
            errors = [np.abs(kept[step].astype(np.float64) - logits[step]).max() for step in range(STEPS)]
            assert 0 < max(errors) <= bound
    del record
    assert len(files(full)) == 2


def test_a_capture_made_before_the_engine_writes_beside_its_store(full) -> None:
    capture = TrajectoryCapture(full.capture)
    with DiffTraceEngine(full):
        capture.begin_trajectory("a", [1], num_diffusion_steps=1, sequence_length=2)
        capture.capture_step(0, [1], [5], logits=np.zeros((2, 8), np.float32))
        record = capture.end_trajectory()
        assert record.logits.path.parent == Path(full.store.base_path) / "logits"
    del record
    assert files(full) == []


def test_logits_within_another_bound_are_not_passed_off_as_these(full, tmp_path) -> None:
    coarse = DiffTraceConfig.full()
    coarse.store.base_path = tmp_path / "other"
    with DiffTraceEngine(coarse), DiffTraceEngine(full) as engine:
        record, _ = captured(coarse.capture)
        with pytest.raises(EngineError, match=r"captured by Lossy\(bound=0.001\), but this engine keeps them by Loss"):
            engine.store_trajectory(record)
        assert engine.store.count() == 0


def test_the_same_twice_is_nothing(full) -> None:
    with DiffTraceEngine(full) as engine:
        first, logits = captured(full.capture)
        for record in (first, first, captured(full.capture)[0]):
            engine.store_trajectory(record)
        assert engine.store.count() == 1
        assert np.array_equal(engine.logits("a")[2], logits[2])
        del record, first
        assert len(files(full)) == 1


def test_a_refused_request_touches_no_file_of_the_one_that_has_its_id(full) -> None:
    with DiffTraceEngine(full) as engine:
        first, logits = captured(full.capture)
        engine.store_trajectory(first)
        same_logits = replace(captured(full.capture)[0], model_name="another")
        for other in (captured(full.capture, seed=1)[0], same_logits):
            with pytest.raises(ConflictError, match="'a'"):
                engine.store_trajectory(other)
        assert np.array_equal(engine.logits("a")[2], logits[2])
        del other, same_logits, first
        assert len(files(full)) == 1


def test_a_refused_request_can_be_stored_under_another_id(full) -> None:
    with DiffTraceEngine(full) as engine:
        engine.store_trajectory(captured(full.capture)[0])
        other, logits = captured(full.capture, seed=1)
        with pytest.raises(ConflictError):
            engine.store_trajectory(other)
        engine.store_trajectory(replace(other, request_id="b"))
        assert np.array_equal(engine.logits("b")[0], logits[0])
    del other
    assert len(files(full)) == 2


def test_what_cannot_be_stored_leaves_no_logits(full) -> None:
    with DiffTraceEngine(full) as engine:
        record, _ = captured(full.capture)
        with pytest.raises(RecordError, match="request_id"):
            engine.store_trajectory(replace(record, request_id="\ud800"))
        engine.store.close()
        with pytest.raises(StoreError, match="closed"):
            engine.store_trajectory(record)
    del record
    assert files(full) == []


def test_deleting_a_request_deletes_its_logits_and_no_others(full) -> None:
    with DiffTraceEngine(full) as engine:
        for name in ("a", "b"):
            engine.store_trajectory(captured(full.capture, name)[0])
        assert engine.delete("a", "nobody") == 1
        assert engine.logits("b").steps == tuple(range(STEPS))
        with pytest.raises(NotStoredError):
            engine.logits("a")
    assert len(files(full)) == 1


def test_files_of_no_request_are_removed_once_they_are_old(full) -> None:
    with DiffTraceEngine(full) as engine:
        engine.store_trajectory(captured(full.capture)[0])
        waiting, _ = captured(full.capture, "b")
        (kept,) = set(files(full)) - {waiting.logits.path}
        left = [kept.with_name(name) for name in ("0.logits", ".difftrace-0.tmp")]
        for path in left:
            path.write_bytes(b"")
        old = kept.stat().st_mtime - 2 * 86400
        for path in (kept, *left):
            os.utime(path, (old, old))
        assert engine.remove_unused_logits() == 2
        assert set(files(full)) == {kept, waiting.logits.path}
        assert engine.remove_unused_logits(timedelta(0)) == 1
        assert files(full) == [kept]
        with pytest.raises(EngineError, match="no longer there; capture them again"):
            engine.store_trajectory(waiting)


def test_a_missing_damaged_or_wrong_file_is_an_error_that_names_it(full) -> None:
    with DiffTraceEngine(full) as engine:
        engine.store_trajectory(captured(full.capture)[0])
        engine.store_trajectory(captured(full.capture, "b", seed=1)[0])
        paths = {name: engine.logits(name).file.path for name in "ab"}
        content = bytearray(paths["a"].read_bytes())
        content[len(content) // 4] ^= 1
        paths["a"].write_bytes(content)
        with pytest.raises(FormatError, match="step "):
            engine.logits("a").file.check()
        paths["a"].write_bytes(paths["b"].read_bytes())
        with pytest.raises(FormatError, match="holds other logits than were stored"):
            engine.logits("a")
        paths["a"].unlink()
        with pytest.raises(FormatError, match=f"{paths['a'].name}: cannot be read"):
            engine.logits("a")
        assert engine.replay("a").tokens is not None


def test_verifying_all_reads_the_logits_too(full, capture_request) -> None:
    with DiffTraceEngine(full) as engine:
        for number, name in enumerate("abcd"):
            engine.store_trajectory(captured(full.capture, name, seed=number)[0])
        engine.store_trajectory(capture_request("without"))
        assert engine.verify_all() == []
        damaged, missing = (engine.logits(name).file.path for name in "bc")
        content = bytearray(damaged.read_bytes())
        content[len(content) // 4] ^= 1
        damaged.write_bytes(content)
        missing.unlink()
        engine.store.delete("d")  # whose file stays, and is no problem
        assert engine.store.verify_all() == []
        problems = engine.verify_all()
    assert [problem.request_id for problem in problems] == ["b", "c"]
    assert all(problem.message.startswith("its logits: ") for problem in problems)
    assert "cannot be read" in problems[1].message


def test_a_request_without_logits_says_how_to_get_them(full, capture_request) -> None:
    with DiffTraceEngine(full) as engine:
        engine.store_trajectory(capture_request("a"))
        with pytest.raises(EngineError, match=r"no logits were stored of 'a'.*FULL_LOGITS"):
            engine.logits("a")


def test_a_disabled_engine_keeps_no_logits(full) -> None:
    full.enabled = False
    with DiffTraceEngine(full) as engine:
        record, _ = captured(full.capture)
        assert engine.store_trajectory(record) is None
        assert record.logits is None
        with pytest.raises(EngineError, match="enabled=False"):
            engine.logits("a")
    assert not Path(full.store.base_path).exists()
