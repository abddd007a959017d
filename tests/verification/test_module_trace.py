"""Every module seen once for each call, whatever it returns, with nothing about the model changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from difftrace.core.module_difference import ModuleFinding, Point, first_difference
from difftrace.core.module_trace import ModuleTrace
from difftrace.determinism.digest import digest
from difftrace.models import LoadedModel
from difftrace.verification.module_trace import trace_modules

X = torch.linspace(-1, 1, 12).view(3, 4)


def linear(seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Linear(4, 4)


class Wrapped(nn.Module):
    """A linear module whose result comes in some wrapping, which the model around it takes off."""

    def __init__(self, wrap: Callable[[Tensor], Any], unwrap: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.inner = _Wrapping(wrap)
        self.after = linear(1)
        self.unwrap = unwrap

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.unwrap(self.inner(x)))  # type: ignore[no-any-return]


class _Wrapping(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = linear()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.linear(x))


class Named(NamedTuple):
    first: Tensor
    second: Tensor | None


@dataclass
class Data:
    hidden: Tensor
    note: str


def _transformers_output(x: Tensor) -> Any:
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=x, hidden_states=(x, x))


WRAPPINGS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor], int]] = {
    "tuple": (lambda x: (x, None, x), lambda out: out[0], 2),
    "list": (lambda x: [x, 5], lambda out: out[0], 1),
    "named tuple": (lambda x: Named(x, None), lambda out: out.first, 1),
    "dict": (lambda x: {"hidden": x, "text": "t"}, lambda out: out["hidden"], 1),
    "nested": (lambda x: {"a": [(x, {"b": x})], "c": x}, lambda out: out["a"][0][1]["b"], 3),
    "dataclass": (lambda x: Data(x, "n"), lambda out: out.hidden, 1),
    "ModelOutput": (_transformers_output, lambda out: out.last_hidden_state, 3),
}


def found(golden: ModuleTrace, observed: ModuleTrace) -> ModuleFinding:
    finding = first_difference(golden, observed)
    assert finding is not None
    return finding


def called(trace: ModuleTrace) -> list[str]:
    return [trace.module_of(index).name for index in range(len(trace.calls))]


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_tensors_are_found_in_whatever_a_module_returns(kind: str) -> None:
    if kind == "ModelOutput":
        pytest.importorskip("transformers")
    wrap, unwrap, count = WRAPPINGS[kind]
    model = Wrapped(wrap, unwrap)
    golden = trace_modules(model, X)
    assert called(golden) == ["", "inner", "inner.linear", "after"]
    outputs = golden.calls[1].outputs
    assert len(outputs) == count
    assert {golden.tensors[index].digest for index in outputs} == {digest(model.inner.linear(X))}
    with torch.no_grad():
        model.after.weight[1, 2] += 1e-4
    finding = found(golden, trace_modules(model, X))
    assert (finding.kind, finding.module) == ("parameters", "after")


def test_inputs_are_found_in_keyword_arguments_too() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Part()

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x, mask={"m": x + 1})  # type: ignore[no-any-return]

    class Part(nn.Module):
        def forward(self, x: Tensor, *, mask: dict[str, Tensor]) -> Tensor:
            return x * mask["m"]

    trace = trace_modules(Model(), x=X)
    assert [trace.tensors[index].digest for index in trace.calls[1].inputs] == [digest(X), digest(X + 1)]
    assert [trace.tensors[index].digest for index in trace.calls[0].inputs] == [digest(X)]


def test_a_block_applied_twice_and_tied_weights_are_one_module_with_all_its_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([linear()] * 2)
            self.head = linear(1)
            self.head.weight = self.blocks[0].weight

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return self.head(x)  # type: ignore[no-any-return]

    model = Tied()
    golden = trace_modules(model, X)
    assert called(golden) == ["", "blocks.0", "blocks.0", "head"]
    assert golden.module_of(1).names == ("blocks.0", "blocks.1")
    assert golden.ordinal(2) == 1
    calls: list[None] = []

    def disturb(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        calls.append(None)
        return output * 1.01 if len(calls) == 2 else output

    with model.blocks[0].register_forward_hook(disturb):
        second = found(golden, trace_modules(model, X))
    assert (second.kind, second.module, second.ordinal) == ("module", "blocks.0", 1)
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-4
    finding = found(golden, trace_modules(model, X))
    assert (finding.kind, finding.module, finding.ordinal) == ("parameters", "blocks.0", 0)
    assert [pair.name for pair in finding.changed] == ["blocks.0.weight", "head.weight"]


class InPlace(nn.Module):
    """Writes into the result of a module after it has returned, and into what it was given itself."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.second = linear(), linear(1)
        self.relu = nn.ReLU(inplace=in_place)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = x.mul_(0.5) if self.in_place else x * 0.5
        return self.second(x)  # type: ignore[no-any-return]


def test_writing_into_a_result_later_does_not_change_what_was_recorded() -> None:
    plain, writing = trace_modules(InPlace(False), X), trace_modules(InPlace(True), X)
    assert first_difference(plain, writing) is None
    model = InPlace(True)
    golden = trace_modules(model, X)
    with torch.no_grad():
        model.second.bias[0] += 1e-4
    finding = found(golden, trace_modules(model, X))
    assert finding.module == "second"
    record = golden.tensors[golden.calls[1].outputs[0]]
    assert record.digest == digest(model.first(X))


class Direct(nn.Module):
    """Uses a module's `forward` and another's weight, past their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.forwarded, self.lent = linear(), linear(1), linear(2)
        self.parts = nn.ModuleList([linear(3)])
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.forwarded.forward(self.called(x))
        return self.parts[0](functional.linear(x, self.lent.weight))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["forwarded", "lent"])
def test_a_module_used_past_its_call_is_said_to_be_unseen_and_still_named(name: str) -> None:
    model = Direct()
    golden = trace_modules(model, X)
    assert [golden.modules[index].name for index in golden.unseen] == ["forwarded", "lent", "unused"]
    with torch.no_grad():
        model.get_submodule(name).weight[0, 1] += 1e-3
    finding = found(golden, trace_modules(model, X))
    assert (finding.kind, finding.module) == ("parameters", "")
    assert (finding.after, finding.before) == (Point("called", "output"), Point("parts.0", "input"))
    assert [pair.name for pair in finding.state if pair.equal is False] == [f"{name}.weight"]


def test_dropout_left_on_is_seen_where_it_is() -> None:
    model = nn.Sequential(linear(), nn.Dropout(0.5), linear(1))
    first, second = trace_modules(model, X), trace_modules(model, X)
    assert first.draws_random_numbers
    finding = found(first, second)
    assert (finding.kind, finding.module, finding.class_name) == ("module", "1", "Dropout")
    model.eval()
    evaluated = trace_modules(model, X)
    assert not evaluated.draws_random_numbers
    assert first_difference(evaluated, trace_modules(model, X)) is None


def test_a_module_that_raises_inside_one_that_goes_on_does_not_confuse_the_rest() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.broken, self.sound = Raising(), linear()

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.broken(x)
            except ValueError:
                x = self.sound(x)
            return x

    trace = trace_modules(Careful(), X)
    assert [(call.parent, len(call.outputs)) for call in trace.calls] == [(None, 1), (0, 0), (0, 1)]


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no")


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(one._forward_hooks)
        + len(one._forward_pre_hooks)
        + len(one._forward_hooks_with_kwargs)
        + len(one._forward_pre_hooks_with_kwargs)
        + len(one._forward_hooks_always_called)
        for one in model.modules()
    )


def test_the_model_is_as_before_also_when_it_raises() -> None:
    model = nn.Sequential(linear(), nn.Sequential(linear(1), Raising()))
    kept = model[0].register_forward_hook(lambda _module, _args, output: output * 2)
    before, hooks = digest(model), hooks_of(model)
    with pytest.raises(ValueError, match="no"):
        trace_modules(model, X)
    assert hooks_of(model) == hooks
    model[1][1] = nn.Identity()
    trace_modules(model, X)
    assert hooks_of(model) == hooks
    assert digest(model) == before
    assert model.training
    assert torch.is_grad_enabled()
    kept.remove()


def test_the_hooks_that_a_model_has_are_part_of_it() -> None:
    model = nn.Sequential(linear(), linear(1))
    golden = trace_modules(model, X)
    with model[0].register_forward_hook(lambda _module, _args, output: output * 1.001):
        finding = found(golden, trace_modules(model, X))
        assert (finding.kind, finding.module) == ("module", "0")
    with model[1].register_forward_pre_hook(lambda _module, args: (args[0] * 1.001,)):
        finding = found(golden, trace_modules(model, X))
        assert (finding.kind, finding.before) == ("between modules", Point("1", "input"))


def test_no_gradient_is_kept_and_the_result_is_the_models() -> None:
    model = linear()
    trace = trace_modules(model, X.clone().requires_grad_())
    assert trace.tensors[trace.calls[0].outputs[0]].digest == digest(model(X))
    assert model.weight.grad is None


def test_parameters_and_buffers_are_named_with_what_they_are() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.absent = nn.Parameter(torch.ones(2, device="meta"))
            self.register_buffer("scale", torch.ones(2, dtype=torch.bfloat16))
            self.register_buffer("table", torch.ones(2), persistent=False)
            self.register_parameter("none", None)

        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    state = {one.name: one for one in trace_modules(Stateful(), X).modules[0].state}
    assert {name: one.role for name, one in state.items()} == {
        "weight": "parameter", "absent": "parameter", "scale": "buffer", "table": "non-persistent buffer",
    }  # fmt: skip
    assert state["weight"].digests == {
        str(dtype).removeprefix("torch."): digest(torch.ones(2, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    }
    assert state["scale"].digests == {"bfloat16": digest(torch.ones(2, dtype=torch.bfloat16))}
    assert state["absent"].digests == {}


def test_a_buffer_that_changes_with_every_call_is_no_difference_by_itself() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    first, second = trace_modules(model, X), trace_modules(model, X)
    assert found(first, second).without_effect


class _Copies(TorchFunctionMode):
    """Counts copies to the host, which cost nothing on the CPU and therefore reach no dispatcher there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (Tensor.cpu, Tensor.item, Tensor.__bool__, Tensor.__int__, Tensor.__float__)
        return func(*args, **(kwargs or {}))


def test_the_whole_trace_is_copied_to_the_host_at_once(reference_model: LoadedModel) -> None:
    ids = torch.tensor([[5, 6, 0, 0]])
    with _Copies() as copies:
        trace = trace_modules(reference_model.model, ids)
    assert len(trace.calls) > 60
    assert copies.count <= 2  # sums, sketches


def test_the_published_names_are_those_of_the_trace(reference_model: LoadedModel) -> None:
    trace = trace_modules(reference_model.model, torch.tensor([[5, 6, 0, 0]]))
    names = called(trace)
    assert names[:4] == ["", "model.transformer", "model.transformer.wte", "model.transformer.blocks.0"]
    assert names[-2:] == ["model.transformer.ln_f", "model.transformer.ff_out"]
    assert trace.unseen == ()


def test_what_was_compiled_is_seen_as_it_is_written() -> None:
    # In a process of its own: the compiler, once imported, stays.
    program = (
        "import torch\n"
        "from torch import nn\n"
        "from difftrace.verification.module_trace import trace_modules\n"
        "model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))\n"
        "trace = trace_modules(torch.compile(model, backend='eager'), torch.ones(1, 2))\n"
        "print([trace.module_of(index).name for index in range(len(trace.calls))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "['', '_orig_mod', '_orig_mod.0', '_orig_mod.1']\n", done.stderr
