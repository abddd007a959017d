"""Loops that torch.compile really compiled are refused by name, whatever of them is compiled and since when.

Importing the compiler takes seconds, and compiling with the backend "eager" next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.core.errors import CaptureError

Canvas = Callable[..., Tensor]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Keep what is compiled here out of other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("fullgraph", [False, True], ids=["with breaks", "one graph"])
@pytest.mark.parametrize("plain", [0, 2], ids=["from the first call", "after plain calls"])
def test_a_step_that_was_compiled_is_refused(canvas: Canvas, plain: int, fullgraph: bool, warm: bool) -> None:
    model, x = torch.nn.Embedding(10, 10), canvas("1__")

    def step(ids: Tensor) -> Tensor:
        best: Tensor = model(ids).argmax(-1)
        return best

    compiled = torch.compile(step, backend="eager", fullgraph=fullgraph)
    if warm:
        compiled(x)

    def loop() -> None:
        for _ in range(plain):
            step(x)
        compiled(x)

    rec = difftrace.record(model, mask_id=9)
    with pytest.raises(CaptureError, match="Embedding is called from compiled code"), rec:
        loop()
    with pytest.raises(CaptureError, match="the recording failed"):
        rec.capture()
    assert "forward" not in vars(model)
    assert torch.equal(compiled(x), step(x))


def test_compiled_models_are_refused(scorer: Any, canvas: Canvas) -> None:
    compiled = torch.compile(scorer, backend="eager")
    with pytest.raises(CaptureError, match=r"it was compiled by torch\.compile"), difftrace.record(compiled):
        pass
    with pytest.raises(CaptureError, match="Scorer is called from compiled code"), difftrace.record(scorer):
        compiled(canvas("1_"))
    scorer.compile(backend="eager")
    with pytest.raises(CaptureError, match=r"compiled by its method compile\(\)"), difftrace.record(scorer):
        pass


def test_parts_of_a_model_may_be_compiled(scorer: Any, canvas: Canvas) -> None:
    own = scorer.forward
    part = torch.compile(torch.cumsum, backend="eager")
    scorer.forward = lambda ids: type(own(ids))(logits=part(own(ids).logits, 1))
    with difftrace.record(scorer) as rec:
        scorer(canvas("1_"))
    assert rec.capture(canvas("12")).trajectories[0].num_events == 1


@pytest.mark.parametrize("fullgraph", [False, True], ids=["with breaks", "one graph"])
def test_what_generate_compiles_for_a_static_cache_is_refused_and_not_left_behind(llama: Any, fullgraph: bool) -> None:
    options = pytest.importorskip("transformers").CompileConfig(backend="eager", fullgraph=fullgraph, mode=None)
    # What it otherwise does on a GPU alone.
    options._compile_all_devices = True
    ids = torch.tensor([[5, 9, 11]])
    arguments = {"max_new_tokens": 4, "cache_implementation": "static", "compile_config": options}
    with pytest.raises(CaptureError, match="disable_compile=True"), difftrace.record(llama):
        llama.generate(ids, attention_mask=torch.ones_like(ids), **arguments)
    assert not {"forward", "_compiled_call", "_last_compile_config"} & vars(llama).keys()
    with difftrace.record(llama) as rec:
        output = llama.generate(ids, attention_mask=torch.ones_like(ids), disable_compile=True, **arguments)
    assert rec.capture(output).verified
