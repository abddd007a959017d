"""Whether stored runs replay exactly, held against a copy that the store never saw, and how long that takes.

    python benchmarks/replay.py [--paper FOLDER] [--trajectories N] [--json FILE] [--svg FILE]
    python benchmarks/replay.py --config reference --trajectories 1000
    python benchmarks/replay.py --config llada-8b --init random --device cuda --dtype bfloat16 --batch 32

The runs are random, or a model's with `--config`, which denoises as many first. Every run is captured step by step and
stored; its output is also kept in an array of its own. The store is then opened anew, each run is read, and the canvas
that its events lead to is compared with the array, not with what the store has. `exact_match` has to say the same. Then
one token of each of some runs is changed in its events, for which `exact_match` must be False. The paper reports 100 %
and 0.362 ms for 128 tokens and 64 steps. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _paper
import numpy as np
from _harness import Figure, count, report
from _runs import Runs
from _sources import add_source_options, machine_of, runs_of, settings_of, title_of
from _svg import Bar, add_svg_option, draw

from difftrace.core.captured import TrajectoryRecord
from difftrace.core.trajectory import Trajectory, TrajectoryCapture
from difftrace.engine import DiffTraceEngine, replay_record
from difftrace.store import Record
from difftrace.utils.config import DiffTraceConfig

CORRUPTED = 500
# The runs that the paper's code is given; its time hardly varies.
THEIRS = 200


@dataclass(frozen=True)
class Found:
    """Shares of the runs, and median milliseconds."""

    exact: float
    said_exact: float
    corrupted_said_exact: float
    replay_ms: float
    decoded_and_replayed_ms: float
    read_and_replayed_ms: float


def captured(runs: Runs, run: int, config: DiffTraceConfig) -> TrajectoryRecord:
    """Capture one run as a loop would."""
    capture = TrajectoryCapture(config.capture)
    capture.begin_trajectory(
        str(run),
        runs.prompts[run],
        num_diffusion_steps=runs.steps,
        sequence_length=runs.length,
        mask_token_id=runs.mask,
    )
    for step, mask in enumerate(runs.masks(run)):
        capture.capture_step(step, runs.positions[run, step], runs.tokens[run, step], mask)
    return capture.end_trajectory(runs.outputs[run])


def measure(runs: Runs, folder: Path) -> Found:
    """Store, open anew, replay."""
    config = DiffTraceConfig()
    config.store.base_path = folder
    with DiffTraceEngine(config) as engine:
        for run in range(len(runs)):
            engine.store_trajectory(captured(runs, run, config))
    exact = said = 0
    replayed, whole = [], []
    with DiffTraceEngine(config) as engine:
        for run in range(len(runs)):
            start = time.perf_counter()
            result = engine.replay(str(run))
            whole.append((time.perf_counter() - start) * 1e3)
            replayed.append(result.replay_time_ms)
            exact += np.array_equal(result.tokens, runs.outputs[run])
            said += result.exact_match
        decoded = [_decode_and_replay(engine.store.get(str(run))) for run in range(min(len(runs), 1000))]
        some = min(len(runs), CORRUPTED)
        wrongly = sum(_corrupted_is_exact(engine.store.get(str(run)), run) for run in range(some))
    return Found(
        exact / len(runs),
        said / len(runs),
        wrongly / some,
        statistics.median(replayed),
        statistics.median(decoded),
        statistics.median(whole),
    )


def _decode_and_replay(record: Record) -> float:
    data = record.trajectory.to_bytes()
    start = time.perf_counter()
    final = Trajectory.from_bytes(data).final
    if record.output is None or not np.array_equal(final, record.output):
        raise SystemExit("a run does not replay")
    return (time.perf_counter() - start) * 1e3


def _corrupted_is_exact(record: Record, seed: int) -> bool:
    """Change one token of the events, to which all digests are made anew, and replay."""
    old = record.trajectory
    tokens = old.tokens.copy()
    tokens[np.random.default_rng(seed).integers(tokens.size)] += 1
    altered = Trajectory(old.prompt, old.initial, old.steps, old.positions, tokens, old.num_steps)
    return replay_record(Record(record.request_id, altered, record.output)).exact_match


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Accuracy and time of replays, beside the paper's.")
    parser.add_argument("--trajectories", type=count, default=10_000, metavar="N")
    add_source_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    _paper.add_paper_option(parser)
    add_svg_option(parser)
    options = parser.parse_args()
    runs = runs_of(options, options.trajectories)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(runs, Path(scratch))
    figures = [
        Figure("not exact, of all, by the copy kept apart", 1 - found.exact, at_most=0.0),
        Figure("not exact, of all, as replay says", 1 - found.said_exact, at_most=0.0),
        Figure("said to be exact, of the corrupted", found.corrupted_said_exact, at_most=0.0),
        Figure("the paper's not exact, published", 0.0),
        Figure("reconstructing and comparing", found.replay_ms, "ms", at_most=_paper.REPLAY_MS),
        Figure("  decoding included", found.decoded_and_replayed_ms, "ms", at_most=_paper.REPLAY_MS),
        Figure("  reading from the store included", found.read_and_replayed_ms, "ms"),
        Figure("the paper's token replay, published", _paper.REPLAY_MS, "ms"),
    ]
    bars = [
        Bar("decoding and replaying", found.decoded_and_replayed_ms),
        Bar("reading from the store, too", found.read_and_replayed_ms),
        Bar("paper, published", _paper.REPLAY_MS, ours=False),
    ]
    theirs = _paper.measured(options.paper, runs.first(THEIRS))
    if theirs is not None:
        figures += [
            Figure("the paper's token replay, here", theirs.replay_ms, "ms"),
            Figure("the paper's not exact, here, as it says", 1 - theirs.exact),
        ]
        bars.append(Bar("paper, here", theirs.replay_ms, ours=False))
    machine = machine_of(options)
    draw(options.svg, title_of(options, "Replaying a run of 128 tokens in 64 steps"), "milliseconds", bars, machine)
    settings = {"trajectories": len(runs), **settings_of(options)}
    return report("replay", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
