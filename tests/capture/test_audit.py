"""What a loop draws and selects is noted, counted where it lies, and not changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import difftrace
from difftrace.capture.audit import Auditor
from difftrace.core.audit import Audit
from difftrace.reports.audit import audit_lines
from loops import dinfer
from loops.cases import CASES, PROMPT, Case, as_lists
from loops.model import MASK, VOCABULARY, TinyDenoiser
from loops.truth import Truth


def audited(work: Callable[[], Any]) -> Audit:
    with Auditor(lambda: 0) as auditor:
        work()
    return auditor.result()


def run(case: Case) -> tuple[Any, Truth, Audit]:
    model = case.model()
    truth = Truth(model)
    torch.manual_seed(0)
    # A forward is counted when it begins; the recorder counts it when it has answered.
    with Auditor(lambda: model.calls) as auditor:
        returned = as_lists(case.run(model, truth))
    return returned, truth, auditor.result()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_loop_decides_otherwise_while_it_is_audited(case: Case) -> None:
    returned, truth, audit = run(case)
    plain, before = case.result()
    assert (returned, truth.events) == (plain, before.events)
    assert audit.draws or audit.selections


def of(name: str) -> tuple[Truth, Audit]:
    _, truth, audit = run(next(case for case in CASES if case.name == name))
    return truth, audit


def test_a_draw_is_noted_with_step_shape_dtype_and_place() -> None:
    _, audit = of("llada at a temperature")
    assert [draw.step for draw in audit.draws] == list(range(8))
    (kind,) = {(draw.operation, draw.shape, draw.dtype, draw.device, draw.generator) for draw in audit.draws}
    assert kind == ("rand_like", (2, 21, VOCABULARY), "float64", "cpu", "global")
    assert {draw.place.partition(":")[0] for draw in audit.draws} == {"choosing.py"}
    assert {draw.place.rpartition(" ")[2] for draw in audit.draws} == {"candidates"}


def test_steps_without_a_forward_of_their_own_belong_to_the_last_forward() -> None:
    truth, audit = of("mdlm")
    assert [draw.step for draw in audit.draws] == [forward - 1 for forward in truth.forwards[:-1]]


@pytest.mark.parametrize(
    ("draw", "operation"),
    [
        (lambda: torch.rand(3), "rand"),
        (lambda: torch.randn(3), "randn"),
        (lambda: torch.randint(4, (3,)), "randint"),
        (lambda: torch.randperm(3), "randperm"),
        (lambda: torch.rand_like(torch.ones(3)), "rand_like"),
        (lambda: torch.randn_like(torch.ones(3)), "randn_like"),
        (lambda: torch.bernoulli(torch.full((3,), 0.5)), "bernoulli"),
        (lambda: torch.ones(3).bernoulli_(0.5), "bernoulli"),
        (lambda: torch.normal(torch.zeros(3), 1.0), "normal"),
        (lambda: torch.empty(3).normal_(), "normal"),
        (lambda: torch.empty(3).uniform_(), "uniform"),
        (lambda: torch.empty(3).exponential_(), "exponential"),
        (lambda: torch.empty(3).random_(), "random"),
        (lambda: torch.poisson(torch.ones(3)), "poisson"),
        (lambda: torch.multinomial(torch.ones(3), 3), "multinomial"),
        (lambda: nn.functional.gumbel_softmax(torch.zeros(3)), "gumbel_softmax"),
        (lambda: nn.functional.dropout(torch.ones(3)), "dropout"),
        (lambda: torch.distributions.Uniform(torch.zeros(3), 1.0).sample(), "rand"),
    ],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_way_to_draw_is_seen_once(draw: Callable[[], Any], operation: str, mode: Callable[[], Any]) -> None:
    with mode():
        audit = audited(draw)
    assert [(found.operation, found.shape) for found in audit.draws] == [(operation, (3,))]
    assert all(found.place.startswith("test_audit.py:") for found in audit.draws)


def test_what_draws_nothing_is_no_draw() -> None:
    audit = audited(
        lambda: [nn.functional.dropout(torch.ones(3), training=False), torch.zeros(3).fill_(1), torch.empty(3)]
    )
    assert audit == Audit()


def test_a_generator_of_the_callers_is_told_from_torchs_own() -> None:
    audit = audited(lambda: [torch.rand(2, generator=torch.Generator()), torch.rand(2)])
    assert [draw.generator for draw in audit.draws] == ["given", "global"]


def test_draws_from_the_generators_of_the_process_are_noticed() -> None:
    state = random.getstate()
    try:
        assert audited(random.random).host == ("random.random",)
    finally:
        random.setstate(state)
    assert audited(lambda: None).host == ()


class Router(nn.Module):
    """Selects and drops out inside of its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x).topk(2).values


def test_what_the_model_does_itself_is_told_from_what_the_loop_does() -> None:
    def work() -> None:
        Router()(torch.ones(4))
        torch.ones(4).topk(2)

    audit = audited(work)
    assert [draw.in_model for draw in audit.draws] == [True]
    assert [(found.in_model, found.step) for found in audit.selections] == [(True, 0), (False, -1)]


TIED = torch.tensor([[0.5, 1.0, 0.5, 0.5, -torch.inf], [1.0, 1.0, 1.0, 1.0, 1.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("select", "operation", "chosen", "tied", "settled"),
    [
        # The first row leaves two of three out, the second three of five.
        (lambda x: torch.topk(x, 2), "topk", 2, 5, False),
        (lambda x: x.topk(2, dim=-1, sorted=False), "topk", 2, 5, False),
        (lambda x: torch.topk(x, k=2, out=(torch.empty_like(x[:, :2]), torch.zeros(2, 2).long())), "topk", 2, 5, False),
        (lambda x: x.t().topk(2, dim=0), "topk", 2, 5, False),
        (lambda x: (-x).topk(2, largest=False), "topk", 2, 5, False),
        # Everything that is not ruled out is taken.
        (lambda x: x[:1].topk(4), "topk", 4, 0, False),
        (lambda x: x[:1].topk(5), "topk", 5, 0, False),
        (lambda x: x.topk(5), "topk", 5, 0, False),
        (lambda x: torch.sort(x, descending=True), "sort", 5, 6, False),
        (lambda x: x.argsort(), "sort", 5, 6, False),
        (lambda x: torch.sort(x, descending=True, stable=True), "sort", 5, 6, True),
        (lambda x: x.argmax(-1), "argmax", 1, 4, True),
        (lambda x: torch.argmax(x), "argmax", 1, 5, True),
        (lambda x: (-x).argmin(1, keepdim=True), "argmin", 1, 4, True),
        (lambda x: x.max(-1), "max", 1, 4, True),
        (lambda x: torch.kthvalue(x, 3), "kthvalue", 1, 6, False),
        (lambda x: x.median(1), "median", 1, 6, False),
    ],
)
def test_ties_at_the_boundary_are_counted(
    select: Callable[[Tensor], Any], operation: str, chosen: int, tied: int, settled: bool, dtype: torch.dtype
) -> None:
    scores = TIED.to(dtype)
    (found,) = audited(lambda: select(scores)).selections
    assert (found.operation, found.chosen, found.tied, found.settled) == (operation, chosen, tied, settled)
    assert (found.dtype, found.device) == (str(dtype).removeprefix("torch."), "cpu")


@pytest.mark.parametrize("gone", [-torch.inf, torch.finfo(torch.float32).min])
def test_what_is_ruled_out_is_not_tied(gone: float) -> None:
    (found,) = audited(lambda: torch.full((8,), gone).topk(3)).selections
    assert found.tied == 0


def test_selections_among_integers_and_values_alone_are_none() -> None:
    whole = torch.ones(4, dtype=torch.long)
    audit = audited(lambda: [whole.topk(2), whole.sort(), TIED.max(), TIED.amax(-1), torch.maximum(TIED, TIED)])
    assert audit.selections == ()


def test_a_bf16_run_says_how_many_positions_are_tied_at_each_step() -> None:
    # Every mask is as sure as every other: whichever the loop takes, all that are left are tied.
    confidence = torch.ones(1, 8, dtype=torch.bfloat16)
    taken = []

    def work() -> None:
        for _ in range(4):
            chosen = confidence[0].topk(2).indices
            confidence[0, chosen] = -torch.inf
            taken.append(chosen)

    with Auditor(lambda: len(taken) + 1) as auditor:
        work()
    audit = auditor.result()
    assert [(found.step, found.tied) for found in audit.selections] == [(0, 6), (1, 4), (2, 2), (3, 0)]
    lines = audit_lines(audit)
    assert lines[0].startswith(
        "step 0: 6 positions tied at the selection boundary (topk of 2 of 8, bfloat16, test_audit"
    )
    assert sum("tied at the selection boundary" in line for line in lines) == 3


class _ReadBacks(TorchDispatchMode):
    """Counts operations whose result the host must wait for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in self.WAITING
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    """Counts copies to the host, which cost nothing on the CPU and reach no dispatcher there."""

    COPYING = (Tensor.cpu, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__int__, Tensor.__float__)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in self.COPYING
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_while_the_loop_runs_and_once_afterwards() -> None:
    def work() -> None:
        for _ in range(5):
            scores = torch.rand(3, 8).bfloat16()
            scores.topk(2), scores.sort(), scores.argmax(-1), scores.max(-1), scores.kthvalue(2)

    with _Copies() as copies, _ReadBacks() as read_backs:
        with Auditor(lambda: 0) as auditor:
            work()
        assert (copies.count, read_backs.count) == (0, 0)
        assert len(auditor.result().selections) == 25
        assert copies.count == 1


def test_a_loop_that_raises_is_left_alone() -> None:
    auditor = Auditor(lambda: 0)

    def work() -> None:
        with auditor:
            torch.rand(2)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert len(auditor.result().draws) == 1
    before = len(torch.utils._python_dispatch._get_current_dispatch_mode_stack())
    torch.rand(2)
    assert (before, len(auditor.result().draws)) == (0, 1)


def test_counted_calls_are_told_as_the_steps_they_belong_to() -> None:
    model = TinyDenoiser()
    truth = Truth(model)
    with Auditor(lambda: model.calls) as auditor:
        next(case for case in CASES if case.name == "dllm bd3lm").run(model, truth)
    audit = auditor.result()
    # The first forward of each block is no step.
    told = audit.at_steps([1, 2, 3, 4, 6, 7, 8, 9])
    assert {found.step for found in told.selections} == set(range(8))
    assert [found.tied for found in told.selections] == [found.tied for found in audit.selections]


@pytest.mark.parametrize("name", ["llada at a temperature", "fast-dllm dual cache threshold", "remdm"])
def test_what_the_recorder_does_is_none_of_the_loops(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    model = case.model()
    truth = Truth(model)
    torch.manual_seed(0)
    with difftrace.record(model, mask_id=MASK) as recorder, Auditor(lambda: model.calls) as auditor:
        output = case.run(model, truth)
    assert recorder.capture(output).verified
    _, alone = of(name)
    assert auditor.result() == alone


@pytest.mark.parametrize("name", ["llada at a temperature", "fast-dllm dual cache threshold", "remdm"])
def test_a_recording_audits_its_loop_when_asked_to(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    model = case.model()
    torch.manual_seed(0)
    with difftrace.record(model, mask_id=MASK, engine="generic", audit=True) as recorder:
        output = case.run(model, Truth(model))
    _, alone = of(name)
    assert recorder.capture(output).audit == alone
    assert recorder.run(output).audit == alone


def test_a_recording_audits_nothing_unless_asked_to() -> None:
    with difftrace.record(TinyDenoiser(), mask_id=MASK) as recorder:
        recorder.step([[MASK, MASK]], [[1, 2]])
    assert recorder.capture().audit is None


def test_an_audit_numbers_steps_as_the_trajectory_does() -> None:
    case = next(case for case in CASES if case.name == "dllm bd3lm")
    model = case.model()
    truth = Truth(model)
    with difftrace.record(model, mask_id=MASK, engine="dllm", audit=True) as recorder:
        output = case.run(model, truth)
    captured = recorder.capture(output)
    assert captured.audit is not None
    assert {found.step for found in captured.audit.selections} == set(range(truth.num_steps))


def test_an_audit_counts_the_steps_of_engines_that_are_recorded_elsewhere_than_at_the_forward() -> None:
    model = TinyDenoiser()
    decoder = dinfer.ThresholdParallelDecoder(Truth(model))
    with difftrace.record(decoder, mask_id=MASK, audit=True) as recorder:
        output = dinfer.BlockWiseDiffusionLLM(model, decoder).generate(PROMPT)
    captured = recorder.capture(output)
    assert captured.audit is not None
    steps = [found.step for found in captured.audit.selections if not found.in_model]
    assert steps[0] == 0
    assert max(steps) == captured.trajectories[0].num_steps - 1
