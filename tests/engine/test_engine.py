"""The engine stores what was captured and replays it honestly."""

from __future__ import annotations

import runpy
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from difftrace import Trajectory
from difftrace.core.errors import ConflictError, EngineError, NotStoredError, RecordError, StoreError
from difftrace.core.trajectory import TrajectoryCapture
from difftrace.engine import DiffTraceEngine
from difftrace.engine.engine import FILE_NAME
from difftrace.store import Record, Store
from difftrace.store.row import encode
from difftrace.utils.config import DiffTraceConfig, IOMode

ROOT = Path(__file__).parents[2]


EXAMPLE = """
from difftrace.engine import DiffTraceEngine
from difftrace.core.trajectory import TrajectoryCapture
from difftrace.utils.config import DiffTraceConfig, CaptureGranularity
config = DiffTraceConfig(); config.capture.granularity = CaptureGranularity.TOKENS_AND_MASKS
engine = DiffTraceEngine(config); capture = TrajectoryCapture(config.capture)
trajectory = capture.begin_trajectory(request_id="my_request_id", prompt_tokens=ids, model_name="LLaDA-8B",
    num_diffusion_steps=128, sequence_length=256, device="cuda:0")
capture.capture_step(step_index=i, unmasked_positions=pos, sampled_tokens=tok, mask_state=mask)   # tensors
trajectory = capture.end_trajectory(generated_tokens=out); engine.store_trajectory(trajectory)
result = engine.replay("my_request_id"); assert result.exact_match
"""


def test_the_papers_example_runs_as_it_is(tmp_path, monkeypatch) -> None:
    torch = pytest.importorskip("torch", reason="the example captures tensors")
    monkeypatch.chdir(tmp_path)
    out = torch.arange(256)
    names = {"ids": np.arange(16, dtype=np.int32), "out": out, "i": 0, "pos": torch.arange(16, 256), "tok": out[16:]}
    names["mask"] = torch.zeros(256, dtype=torch.bool)
    program = tmp_path / "example.py"
    program.write_text(EXAMPLE)
    left = runpy.run_path(str(program), init_globals=names)
    left["engine"].shutdown()
    assert left["result"].generated_tokens.tolist() == out[16:].tolist()
    assert (tmp_path / "provenance_store" / FILE_NAME).is_file()


def test_replay_gives_what_was_served_from_the_events_alone(engine, capture_request) -> None:
    captured = capture_request("a/../b ü")
    stored = engine.store_trajectory(captured)
    result = engine.replay("a/../b ü")
    assert result.exact_match
    assert result.success
    assert (result.compared, result.token_match_rate, result.mismatches) == (16, 1.0, ())
    assert np.array_equal(result.tokens, captured.generated_tokens)
    assert np.array_equal(result.generated_tokens, captured.generated_tokens[4:])
    assert result.tokens is not stored.output


def test_an_output_that_the_events_do_not_lead_to_is_no_exact_match(engine, capture_request) -> None:
    captured = capture_request("a", wrong=7)
    engine.store_trajectory(captured)
    result = engine.replay("a")
    assert not result.exact_match
    (mismatch,) = result.mismatches
    assert (mismatch.position, mismatch.stored) == (7, mismatch.replayed + 1)
    assert mismatch.step == captured.trajectory.steps[captured.trajectory.positions == 7]
    assert result.mismatched_positions == [7]
    assert result.token_match_rate == 15 / 16
    assert f"step {mismatch.step} committed {mismatch.replayed} to position 7" in result.reason


def test_without_a_stored_output_there_is_no_exact_match_but_a_reason(engine, capture_request) -> None:
    engine.store_trajectory(capture_request("a", output=False))
    result = engine.replay("a")
    assert not result.exact_match
    assert "no output was stored" in result.reason
    assert (result.compared, result.token_match_rate) == (0, 0.0)
    assert result.tokens is not None


def test_an_output_of_another_length_is_not_compared(engine, capture_request) -> None:
    captured = capture_request("a")
    engine.store.put(Record("a", captured.trajectory, captured.generated_tokens[:-3]))
    result = engine.replay("a")
    assert not result.exact_match
    assert "has 13 tokens" in result.reason


def _alter_event(path: Path, request_id: str, forged: bool) -> None:
    """Change one token of the stored events; with `forged` every digest is made to fit."""
    with Store(path) as store:
        record = store.get(request_id)
    tokens = record.trajectory.tokens.copy()
    tokens[3] += 1
    old = record.trajectory
    altered = Trajectory(old.prompt, old.initial, old.steps, old.positions, tokens, old.num_steps)
    changed = Record(request_id, altered, record.output, record.model, record.metadata, record.created_at)
    row = encode(changed)
    with sqlite3.connect(path) as connection:
        if forged:
            connection.execute(
                "UPDATE record SET trajectory = ?, trajectory_digest = ?, digest = ?",
                (row.trajectory, row.trajectory_digest, row.digest),
            )
        else:
            connection.execute("UPDATE record SET trajectory = ?", (row.trajectory,))
    connection.close()


@pytest.mark.parametrize("forged", [False, True], ids=["digest kept", "digest forged"])
def test_a_corrupted_event_is_no_exact_match(config, capture_request, forged) -> None:
    with DiffTraceEngine(config) as engine:
        engine.store_trajectory(capture_request("a"))
        path = engine.store.path
    _alter_event(path, "a", forged)
    with DiffTraceEngine(config) as engine:
        result = engine.replay("a")
    assert not result.exact_match
    assert result.success is forged
    assert len(result.mismatches) == (1 if forged else 0)
    assert ("do not lead to" if forged else "is damaged") in result.reason


def test_an_unknown_request_is_an_error(engine) -> None:
    with pytest.raises(NotStoredError, match="'nobody'"):
        engine.replay("nobody")


def test_what_was_not_ended_cannot_be_stored(engine, config) -> None:
    begun = TrajectoryCapture(config.capture).begin_trajectory("a", [1, 2], sequence_length=4)
    with pytest.raises(EngineError, match=r"'a' has not ended; store what end_trajectory\(\) returns"):
        engine.store_trajectory(begun)
    with pytest.raises(EngineError, match="not dict"):
        engine.store_trajectory({})


def test_storing_the_same_twice_is_nothing_and_another_under_its_id_an_error(engine, capture_request) -> None:
    engine.store_trajectory(capture_request("a"))
    engine.store_trajectory(capture_request("a"))
    with pytest.raises(ConflictError, match="'a'"):
        engine.store_trajectory(capture_request("a", seed=1))
    assert engine.store.count() == 1


def test_in_the_background_a_conflict_does_not_pass_for_an_exact_match(config, capture_request) -> None:
    config.io.mode = IOMode.ASYNC
    with DiffTraceEngine(config) as engine:
        engine.store_trajectory(capture_request("a"))
        engine.store_trajectory(capture_request("a", seed=1))
        with pytest.raises(ConflictError, match="'a'"):
            engine.replay("a")


def test_what_is_written_in_the_background_is_there_when_asked_for(config, capture_request) -> None:
    config.io.mode = IOMode.ASYNC
    with DiffTraceEngine(config) as engine:
        for number in range(20):
            engine.store_trajectory(capture_request(f"r{number}", seed=number))
        assert engine.replay("r19").exact_match
        assert engine.get_stats()["io"]["written"] == 20
        engine.store_trajectory(capture_request("last"))
    with Store(Path(config.store.base_path) / FILE_NAME) as store:
        assert store.count() == 21
        assert store.verify_all() == []


def test_requests_of_many_threads_keep_apart(config, capture_request) -> None:
    config.io.mode = IOMode.ASYNC
    with DiffTraceEngine(config) as engine:

        def serve(number: int) -> bool:
            captured = capture_request(f"request/{number}", seed=number)
            engine.store_trajectory(captured)
            result = engine.replay(f"request/{number}")
            return result.exact_match and np.array_equal(result.tokens, captured.generated_tokens)

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(serve, range(80)))
        assert engine.store.count() == 80
    assert threading.active_count() < 8


def test_records_are_listed_newest_first_by_model_and_time(engine, capture_request) -> None:
    for name, model in (("a", "LLaDA"), ("b", "Dream"), ("c", "LLaDA")):
        engine.store_trajectory(capture_request(name, model_name=model))
    times = {entry.request_id: entry.created_at for entry in engine.store.entries()}
    assert [entry.request_id for entry in engine.list_records()] == ["c", "b", "a"]
    assert [entry.request_id for entry in engine.list_records(model_name="LLaDA", limit=1)] == ["c"]
    moment = round(times["b"].timestamp() * 1_000_000) * 1000
    assert [entry.request_id for entry in engine.list_records(time_range=(moment, moment))] == ["b"]
    assert engine.list_records(time_range=(time.time_ns() + 10**12, time.time_ns() + 10**13)) == []


@pytest.mark.parametrize("time_range", [5, (1,), (1, 2, 3), (0, 10**30), (-(10**30), 0), ("a", "b"), (1.5, 2.5)])
def test_a_range_of_times_that_makes_no_sense_is_an_error(engine, time_range) -> None:
    with pytest.raises(EngineError, match=r"^time_range is .* within the years 1 to 9999"):
        engine.list_records(time_range=time_range)


def test_an_age_that_is_no_timedelta_is_an_error(engine) -> None:
    with pytest.raises(EngineError, match="older_than must be a timedelta, not int"):
        engine.remove_unused_logits(5)


def test_a_failure_reported_by_the_only_rank_is_nothing(engine) -> None:
    engine.report_failure("a", ValueError("no"))
    assert engine.store.count() == 0


def test_what_is_known_of_the_request_is_kept(engine, capture_request) -> None:
    config = {"mask_token_id": 999, "block": [8, 4], "dtype": np.dtype("int8")}
    engine.store_trajectory(capture_request("a", prompt_text="2 + 2", temperature=0.5, model_config=config))
    record = engine.store.get("a")
    assert dict(record.metadata) == {
        "prompt_text": "2 + 2",
        "temperature": 0.5,
        "model_config.mask_token_id": 999,
        "model_config.block": "[8, 4]",
        "model_config.dtype": "int8",
    }
    assert set(record.trajectory.initial[4:].tolist()) == {999}


def test_what_a_store_cannot_keep_is_refused(engine, capture_request) -> None:
    with pytest.raises(RecordError, match="request_id is empty"):
        engine.store_trajectory(capture_request(""))
    with pytest.raises(RecordError, match="half a surrogate pair"):
        engine.store_trajectory(capture_request("a", prompt_text="\ud800"))


def test_a_disabled_engine_stores_nothing_and_says_so(config, capture_request) -> None:
    config.enabled = False
    with DiffTraceEngine(config) as engine:
        assert engine.store_trajectory(capture_request("a")) is None
        assert engine.get_stats() == {"enabled": False}
        with pytest.raises(EngineError, match="enabled=False"):
            engine.replay("a")
    assert not Path(config.store.base_path).exists()


def test_a_closed_engine_says_so(config, capture_request) -> None:
    engine = DiffTraceEngine(config)
    engine.close()
    engine.shutdown()
    with pytest.raises(StoreError, match="closed"):
        engine.store_trajectory(capture_request("a"))


def test_a_setting_that_would_lose_data_is_refused_when_the_engine_is_made(tmp_path) -> None:
    config = DiffTraceConfig()
    config.store.base_path = tmp_path
    config.capture.capture_every_n_steps = 2
    with pytest.raises(EngineError, match=r"capture\.capture_every_n_steps is 2, but can only be 1"):
        DiffTraceEngine(config)
    assert list(tmp_path.iterdir()) == []


def test_ranks_are_not_compared_without_a_group_that_has_the_coordinator(config) -> None:
    pytest.importorskip("torch", reason="ranks are those of torch.distributed")
    config.distributed.enabled = True
    with pytest.raises(EngineError, match=r"no default group; call torch\.distributed\.init_process_group\(\)"):
        DiffTraceEngine(config)
    assert not Path(config.store.base_path).exists()


def test_the_package_utils_holds_the_papers_configuration_alone() -> None:
    files = sorted(file.name for file in (ROOT / "src" / "difftrace" / "utils").glob("*.py"))
    assert files == ["__init__.py", "config.py"]
