"""What cannot be recorded says so by name, and leaves the model as it was."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.core.errors import CaptureError

Canvas = Callable[..., Tensor]


def test_a_loop_that_raises_leaves_nothing(scorer: Any, canvas: Canvas) -> None:
    rec = difftrace.record(scorer)

    def loop() -> None:
        scorer(canvas("1_"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), rec:
        loop()
    assert "forward" not in vars(scorer)
    with pytest.raises(CaptureError, match="the recording failed: the loop raised ZeroDivisionError"):
        rec.trajectories(canvas("12"))
    with difftrace.record(scorer) as again:
        scorer(canvas("1_"))
    assert again.trajectories(canvas("12"))[0].num_events == 1


def test_recordings_of_one_model_do_not_nest(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        with pytest.raises(CaptureError, match="this Scorer is being recorded already"), difftrace.record(scorer):
            pass
        scorer(canvas("1_"))
    assert rec.trajectories(canvas("12"))[0].num_events == 1
    assert "forward" not in vars(scorer)


def test_a_model_called_from_two_threads_is_named(scorer: Any, canvas: Canvas) -> None:
    errors: list[BaseException] = []

    def other() -> None:
        try:
            scorer(canvas("1_"))
        except CaptureError as error:
            errors.append(error)

    def loop() -> None:
        scorer(canvas("1_"))
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    rec = difftrace.record(scorer)
    with pytest.raises(CaptureError, match="Scorer was called from two threads"), rec:
        loop()
    assert "Scorer was called from two threads" in str(errors[0])
    with pytest.raises(CaptureError, match="the recording failed: Scorer was called from two threads"):
        rec.trajectories()
    assert "forward" not in vars(scorer)


def test_a_loop_in_one_other_thread_is_recorded(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        thread = threading.Thread(target=scorer, args=(canvas("1_"),))
        thread.start()
        thread.join()
    assert rec.trajectories(canvas("12"))[0].num_events == 1


def test_embeddings_instead_of_ids_are_refused_by_name(scorer: Any) -> None:
    refused = pytest.raises(CaptureError, match=r"embeddings \(inputs_embeds\) instead of token ids")
    with refused, difftrace.record(scorer):
        scorer(inputs_embeds=torch.zeros(1, 2, 10))
    assert "forward" not in vars(scorer)


class _Compiled(torch.nn.Module):
    """As torch.compile(model) is seen from outside; building the real one imports the compiler, which takes seconds."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, ids: Tensor) -> Any:
        return self._orig_mod(ids)


def test_compiled_models_are_refused_by_name(scorer: Any) -> None:
    with pytest.raises(CaptureError, match=r"_Compiled cannot be recorded: it was compiled by torch\.compile"):
        difftrace.record(_Compiled(scorer)).__enter__()
    scorer._compiled_call_impl = lambda *args: None
    with pytest.raises(CaptureError, match=r"compiled by its method compile\(\)"):
        difftrace.record(scorer).__enter__()
    scorer._compiled_call_impl = None
    own = scorer.forward
    scorer.forward = lambda ids: own(ids)
    scorer.forward._torchdynamo_orig_callable = own
    with pytest.raises(CaptureError, match=r"its forward was compiled by torch\.compile"):
        difftrace.record(scorer).__enter__()


def test_a_model_compiled_while_it_is_recorded_is_refused(scorer: Any, canvas: Canvas) -> None:
    def loop() -> None:
        scorer(canvas("1_"))
        scorer._compiled_call_impl = lambda *args: None

    with pytest.raises(CaptureError, match="was compiled while it was recorded"), difftrace.record(scorer):
        loop()
    assert "forward" not in vars(scorer)


def test_what_has_no_forward_is_refused() -> None:
    with pytest.raises(CaptureError, match="object has no forward to record"), difftrace.record(object()):
        pass
    with pytest.raises(CaptureError, match="type has no forward to record"), difftrace.record(torch.nn.Linear):
        pass


def test_asking_too_early_or_recording_twice_says_so(scorer: Any, canvas: Canvas) -> None:
    rec = difftrace.record(scorer)
    with pytest.raises(CaptureError, match="the recording has not begun"):
        rec.trajectories()
    with rec:
        scorer(canvas("1_"))
        with pytest.raises(CaptureError, match="the recording is not over"):
            rec.trajectories()
    with pytest.raises(CaptureError, match="a recorder records once"):
        rec.__enter__()
    with pytest.raises(CaptureError, match="was not given what the loop returned"):
        rec.as_run()


def test_an_unknown_engine_lists_those_there_are(scorer: Any) -> None:
    with pytest.raises(CaptureError, match=r"there is no engine 'lada': it must be auto, .*generic.*llada.*steps"):
        difftrace.record(scorer, engine="lada")


class OptimizeContext:
    """What the compiler calls the code that it made through."""

    def call(self, loop: Callable[[], object]) -> object:
        return loop()


def test_a_loop_in_compiled_code_is_refused_by_name(scorer: Any, canvas: Canvas) -> None:
    # Compiling for real imports the compiler, which takes seconds.
    call = types.FunctionType(OptimizeContext.call.__code__, {"__name__": "torch._dynamo.eval_frame"})
    with pytest.raises(CaptureError, match="Scorer is called from compiled code"), difftrace.record(scorer):
        call(OptimizeContext(), lambda: scorer(canvas("1_")))
    assert "forward" not in vars(scorer)
