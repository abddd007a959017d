"""One rank of several: goes through scenes, and prints what each came to as a line of JSON.

python rank.py RENDEZVOUS RANK SIZE [SCENE …]
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import difftrace
from difftrace import Trajectory
from difftrace.core.errors import EngineError, RankError
from difftrace.core.run import Run
from difftrace.core.trajectory import TrajectoryCapture, TrajectoryRecord
from difftrace.engine import DiffTraceEngine
from difftrace.models import load_model
from difftrace.models.reference import reference_model_path
from difftrace.ranks import Ranks, current
from difftrace.sampling import generate
from difftrace.utils.config import DiffTraceConfig
from difftrace.verification import ModelRunner

STEPS = 12


def run_of(*tokens: int) -> Run:
    count = len(tokens)
    columns = {"steps": range(count), "positions": range(2, 2 + count), "tokens": tokens}
    one = Trajectory(prompt=[1, 2], initial=[1, 2, *[99] * count], num_steps=count, **columns)
    return Run((one,))


def same(ranks: Ranks) -> str:
    return f"steps {ranks.run(lambda: run_of(*range(STEPS))).trajectories[0].num_steps}"


def last_differs(ranks: Ranks) -> str:
    tokens = list(range(STEPS))
    if ranks.rank == ranks.size - 1:
        tokens[7] = 88
    ranks.run(lambda: run_of(*tokens))
    return "not noticed"


def last_raises(ranks: Ranks) -> str:
    def make() -> Run:
        if ranks.rank == ranks.size - 1:
            raise ValueError("no memory\x1b[31m left")
        return run_of(1)

    ranks.run(make)
    return "not noticed"


def first_makes_one_more(ranks: Ranks) -> str:
    try:
        for _ in range(1 + (ranks.rank == 0)):
            same(ranks)
    finally:
        ranks.rest()
    return "not noticed"


def asked(ranks: Ranks) -> str:
    return str(ranks.ask(ranks.rank == 0))


def first_counts(ranks: Ranks) -> str:
    return str(ranks.of_first(-7 - ranks.rank))


def model(ranks: Ranks) -> str:
    """Every rank has the model; then the last one's is changed."""
    loaded = load_model(reference_model_path())
    runner = ModelRunner(loaded, across_ranks=True)
    prompt, arguments = "12 + 30 = ", {"gen_length": 8, "steps": 8}
    first = runner.generate(prompt, **arguments)
    assert first.repeat is not None
    assert first.repeat().trajectories == first.trajectories
    assert loaded.tokenizer is not None
    ids = torch.tensor([loaded.tokenizer.encode(prompt)])
    with difftrace.record(loaded, across_ranks=True) as rec:
        out = generate(loaded.model, ids, block_length=8, seed=ranks.size, **arguments)
    assert rec.run(out.tokens).trajectories[0].num_events == 8
    if ranks.rank == ranks.size - 1:
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                parameter.mul_(0.5)
    runner.generate(prompt, **arguments)
    return "not noticed"


def engine(ranks: Ranks) -> str:
    """Every rank stores each request; the last one captured something else of the second."""
    config = DiffTraceConfig.full()
    config.distributed.enabled = True
    config.store.base_path = Path(sys.argv[1]).parent / "kept"
    kept = []
    with DiffTraceEngine(config) as opened:
        try:
            for request in ("first", "second"):
                capture = TrajectoryCapture(config.capture)
                capture.begin_trajectory(request, [1], num_diffusion_steps=3, sequence_length=4)
                for step in range(3):
                    token = 5 + step + (request == "second" and step == 2 and ranks.rank == ranks.size - 1)
                    capture.capture_step(step, [1 + step], [token], logits=torch.zeros(4, 8))
                ended = capture.end_trajectory()
                kept.append(f"{ended.logits is not None} {opened.store_trajectory(ended) is not None}")
        except RankError as error:
            kept.append(str(error).splitlines()[1].strip())
        try:
            kept.append(f"{opened.store.count()} {opened.logits('first').steps}")
        except EngineError as error:
            kept.append(str(error))
    return ", ".join(kept)


def requests(ranks: Ranks) -> str:
    """Equal decisions of other requests, a request that the last rank leaves out, and one at which it fails."""
    config = DiffTraceConfig()
    config.distributed.enabled = True
    config.store.base_path = Path(sys.argv[1]).parent / "requests"
    is_last = ranks.rank == ranks.size - 1

    def ended(request: str) -> TrajectoryRecord:
        capture = TrajectoryCapture(config.capture)
        capture.begin_trajectory(request, [1], num_diffusion_steps=1, sequence_length=2)
        capture.capture_step(0, [1], [5])
        return capture.end_trajectory()

    told = []
    with DiffTraceEngine(config) as opened:
        for request in ("a" * 300 + str(is_last), "b" if is_last else "c"):
            try:
                opened.store_trajectory(ended(request))
                told.append("not noticed")
            except RankError as error:
                told.append(str(error))
        try:
            if is_last:
                opened.report_failure("d", MemoryError("no room"))
                told.append("reported")
            else:
                opened.store_trajectory(ended("d"))
                told.append("not noticed")
        except RankError as error:
            told.append(str(error))
        opened.report_failure("e", MemoryError())  # on all of them
        opened.store_trajectory(ended("f"))
        if ranks.rank == 0:
            opened.flush()
            told.append(",".join(entry.request_id for entry in opened.store.entries()))
    return json.dumps(told)


def tensor_parallel(ranks: Ranks) -> str:
    """Every rank has a part of each block's second half, and all decide as a rank with the whole model does."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    loaded = load_model(reference_model_path())
    arguments = {"gen_length": 8, "steps": 8}
    whole = ModelRunner(loaded).generate("12 + 30 = ", **arguments)
    for name, module in loaded.model.named_modules():
        if name.rpartition(".")[0].endswith("blocks"):
            plan = {"ff_proj": ColwiseParallel(), "up_proj": ColwiseParallel(), "ff_out": RowwiseParallel()}
            parallelize_module(module, init_device_mesh("cpu", (ranks.size,)), plan)
    assert any(parameter.__class__.__name__ == "DTensor" for parameter in loaded.model.parameters())
    spread = ModelRunner(loaded, across_ranks=True).generate("12 + 30 = ", **arguments)
    return f"{spread.text.strip()} {spread.trajectories == whole.trajectories}"


def last_is_gone(ranks: Ranks) -> str:
    if ranks.rank == ranks.size - 1:
        os._exit(0)
    same(ranks)
    return "not noticed"


def after_that(ranks: Ranks) -> str:
    return f"lost {ranks.lost}"


SCENES: dict[str, Callable[[Ranks], str]] = {
    scene.__name__: scene
    for scene in (
        same,
        last_differs,
        last_raises,
        first_makes_one_more,
        asked,
        first_counts,
        model,
        engine,
        requests,
        tensor_parallel,
        last_is_gone,
        after_that,
    )
}


def main() -> None:
    rendezvous, rank, size, *names = sys.argv[1:]
    assert current() is None
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(size), timeout=timedelta(seconds=60)
    )
    ranks = current()
    assert ranks is not None
    assert ranks is current()
    for name in names:
        try:
            result = SCENES[name](ranks)
        except (RankError, ValueError) as error:
            result = f"{type(error).__name__}: {error}"
        print(json.dumps([name, result]), flush=True)


main()
