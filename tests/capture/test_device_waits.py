"""Recording adds no wait for the device to a loop, and as many after it for one step as for many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import difftrace
from difftrace.capture import LoopAdapter
from difftrace.capture.scores import ScoreRecorder
from difftrace.capture.tape import Tape


class _Operations(TorchDispatchMode):
    """Lists operations whose result the host must wait for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen += [name] if name in self.WAITING else []
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """Lists copies to the host, which cost nothing on the CPU and therefore reach no dispatcher there."""

    COPYING = (Tensor.cpu, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__int__, Tensor.__float__)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += [func.__name__] if func in self.COPYING or func is Tensor.nonzero else []
        return func(*args, **(kwargs or {}))


@contextmanager
def _waits() -> Iterator[list[str]]:
    seen: list[str] = []
    with _Methods() as methods, _Operations() as operations:
        yield seen
    seen += methods.seen + operations.seen


def _loop(model: Any, steps: int, rec: Any = None) -> Tensor:
    """Commit a position a step from a window of the device's own choosing, without ever waiting for it."""
    x = torch.full((2, 24), 9)
    x[:, :4] = 1
    mask = torch.ones_like(x)
    for step in range(steps):
        window = torch.zeros(x.shape, dtype=torch.bool)
        window[:, 4:] = True
        before = x.clone()
        model(x[:, 4:] if step else x, attention_mask=mask, replace_position=window if step else None)
        x[:, 4 + step] = 2
        if rec is not None:
            rec.step(before, x)
    return x


@pytest.mark.parametrize("told", [False, True], ids=["calls alone", "steps told"])
@pytest.mark.parametrize("keep", ["decisions", "evidence"])
def test_nothing_waits_while_the_loop_runs(scorer: Any, keep: Any, told: bool) -> None:
    with difftrace.record(scorer, keep=keep) as rec, _waits() as seen:
        out = _loop(scorer, 12, rec if told else None)
    assert seen == []
    assert rec.trajectories(out)[0].num_events == 12


@pytest.mark.parametrize("keep", ["decisions", "evidence"])
def test_the_copy_at_the_end_is_one_for_any_number_of_steps(scorer: Any, keep: Any) -> None:
    counts = []
    for steps in (2, 16):
        rec = difftrace.record(scorer, keep=keep)
        rec.__enter__()
        _loop(scorer, steps)
        with _waits() as seen:
            rec.__exit__(None, None, None)
        counts.append([name for name in seen if name != "numpy"])
    assert counts[0]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("engine", ["llama", "gemma"])
@pytest.mark.usefixtures("no_compiler")
def test_engines_of_transformers_wait_as_often_as_unrecorded(request: pytest.FixtureRequest, engine: str) -> None:
    model, ids = request.getfixturevalue(engine), torch.tensor([[5, 9, 11]])
    length = {"max_new_tokens": 16} | ({"max_denoising_steps": 6} if engine == "gemma" else {"do_sample": True})

    def loop() -> list[str]:
        torch.manual_seed(0)
        with _waits() as seen:
            model.generate(ids, **length)
        return seen

    with torch.random.fork_rng():
        bare = loop()
        with difftrace.record(model) as rec:
            recorded = loop()
    assert rec.engine in ("causal", "diffusion_gemma")
    assert recorded == bare


def test_a_loop_on_tensors_that_hold_no_values_is_recorded() -> None:
    # On the meta device anything that needs a value raises: data-dependent shapes, branches and copies.
    adapter, tape = LoopAdapter(), Tape("model", ScoreRecorder(9, 0))
    with torch.device("meta"):
        model = torch.nn.Embedding(10, 10)
        with adapter.attach(model, tape):
            x = torch.zeros((2, 8), dtype=torch.long)
            for _ in range(3):
                model(x)
                model.forward(x)


def test_the_counters_see_what_would_wait() -> None:
    x = torch.ones(3)
    for wait in (x.cpu, x.tolist, x.sum().item, x.nonzero, lambda: bool(x[0]), x.numpy):
        with _waits() as seen:
            wait()
        assert seen, wait
