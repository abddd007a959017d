"""A scan names what need not repeat itself, and leaves the model as it found it."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import difftrace
from difftrace import scan
from difftrace.core.errors import ScanError
from difftrace.core.schemas import violation
from difftrace.determinism.hazards import HAZARDS, hazards_of
from difftrace.determinism.hazards.randomness import REPEATED_THOUGH_TAGGED
from difftrace.determinism.scan_report import Finding, ScanReport
from difftrace.models import LoadedModel

X = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
ONES = torch.ones(2, 3, 4)
SAME = torch.zeros(2, 3, 4, dtype=torch.long)
TWICE = torch.tensor([1, 1])
ONCE = torch.tensor([1, 0])


def _kinds(report: ScanReport) -> set[tuple[str, str]]:
    return {(found.kind, found.operation) for found in report.findings}


def _only(report: ScanReport) -> Finding:
    (found,) = report.findings
    return found


@pytest.mark.parametrize(
    ("forward", "kind", "operation", "devices"),
    [
        (lambda x: functional.dropout(x, 0.5, training=True), "random", "dropout", ("any",)),
        (lambda x: functional.dropout1d(x, 0.5, training=True), "random", "dropout1d", ("any",)),
        (lambda x: functional.alpha_dropout(x, 0.5, training=True), "random", "alpha_dropout", ("any",)),
        (lambda x: functional.rrelu(x, training=True), "random", "rrelu", ("any",)),
        (lambda x: functional.gumbel_softmax(x), "random", "gumbel_softmax", ("any",)),
        (lambda x: torch.bernoulli(x / 24), "random", "bernoulli", ("any",)),
        (lambda x: torch.rand_like(x), "random", "rand_like", ("any",)),
        (lambda x: torch.randperm(3), "random", "randperm", ("any",)),
        (lambda x: torch.empty(3).exponential_(), "random", "exponential_", ("any",)),
        (lambda x: torch.multinomial(ONES[0], 1), "random", "multinomial", ("any",)),
        (lambda x: x.cumsum(-1), "nondeterministic", "cumsum", ("cuda",)),
        (lambda x: x.long().cumsum(-1, dtype=torch.float16), "nondeterministic", "cumsum", ("cuda",)),
        (lambda x: x.flatten().cumprod(0), "nondeterministic", "cumprod", ("cuda",)),
        (lambda x: x.scatter_add(0, SAME, x), "nondeterministic", "scatter_add", ("cuda",)),
        (lambda x: x.clone().scatter_add_(0, SAME, x), "nondeterministic", "scatter_add_", ("cuda",)),
        (lambda x: x.index_add(0, ONCE, x), "nondeterministic", "index_add", ("cuda",)),
        (lambda x: x.scatter_reduce(0, SAME, x, "sum"), "nondeterministic", "scatter_reduce", ("cuda",)),
        (lambda x: x.scatter_reduce(0, SAME, x, "prod"), "nondeterministic", "scatter_reduce", ("cuda",)),
        (lambda x: x.scatter(0, SAME, x), "nondeterministic", "scatter", ("cuda",)),
        (lambda x: x.index_copy(0, TWICE, x), "nondeterministic", "index_copy", ("cpu", "cuda")),
        (lambda x: x.index_put((TWICE,), x, accumulate=True), "nondeterministic", "index_put", ("cpu",)),
        (lambda x: x.index_put((TWICE,), x), "nondeterministic", "index_put", ("cpu", "cuda")),
        (lambda x: x.index_put((torch.tensor([0, -2]),), x), "nondeterministic", "index_put", ("cpu", "cuda")),
        (lambda x: x.put(TWICE, ONES[0, 0, :2]), "nondeterministic", "put", ("cpu", "cuda")),
        (lambda x: x.put(TWICE, ONES[0, 0, :2], accumulate=True), "nondeterministic", "put", ("cuda",)),
        (lambda x: torch.bincount(ONCE, weights=ONES[0, 0, :2]), "nondeterministic", "bincount", ("cuda",)),
        (lambda x: x.histc(3), "nondeterministic", "histc", ("cuda",)),
        (lambda x: functional.conv1d(x, ONES), "nondeterministic", "convolution", ("cuda",)),
        (lambda x: functional.cross_entropy(x, SAME[:, 0]), "nondeterministic", "nll_loss2d_forward", ("cuda",)),
        (lambda x: x.topk(2), "tie-unspecified", "topk", ("any",)),
        (lambda x: x.sort(), "tie-unspecified", "sort", ("any",)),
        (lambda x: x.sort(stable=False), "tie-unspecified", "sort", ("any",)),
        (lambda x: x.argsort(), "tie-unspecified", "sort", ("any",)),
        (lambda x: x.kthvalue(1), "tie-unspecified", "kthvalue", ("any",)),
        (lambda x: x.median(-1), "tie-unspecified", "median", ("any",)),
    ],
)
def test_what_may_vary_is_found(
    forward: Callable[[Tensor], object], kind: str, operation: str, devices: tuple[str, ...]
) -> None:
    found = _only(scan(forward, X))
    assert (found.kind, found.operation, found.devices, found.count) == (kind, operation, devices, 1)
    assert found.why
    assert found.fix
    assert found.source


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: functional.dropout(x, 0.5, training=False),
        lambda x: functional.dropout(x, 0.0, training=True),
        lambda x: functional.rrelu(x),
        lambda x: x.long().cumsum(-1),
        lambda x: x.cumprod(-1),
        lambda x: x.long().scatter_add(0, SAME, SAME),
        lambda x: x.long().index_add(0, TWICE, SAME),
        lambda x: x.scatter_reduce(0, SAME, x, "amax"),
        lambda x: x.scatter(1, torch.arange(3).reshape(1, 3, 1).expand(2, 3, 4), x),
        lambda x: x.scatter(0, SAME, 1.0),
        lambda x: x.index_copy(0, ONCE, x),
        lambda x: x.index_put((ONCE,), x),
        lambda x: x.clone().__setitem__((slice(None), torch.tensor([0, 2])), ONES[:, :2]),
        lambda x: x.index_put((x > 3,), ONES.flatten()[:20]),
        lambda x: x.index_put((x[..., 0] > 3, ONCE[:1]), ONES[0, 0, :1]),
        lambda x: x.index_put((TWICE,), torch.tensor(7.0)),
        lambda x: x.index_put((TWICE, ONCE), ONES[0, :2]),
        lambda x: x.put(ONCE, ONES[0, 0, :2]),
        lambda x: x.sort(stable=True),
        lambda x: x.argsort(stable=True),
        lambda x: (x.argmax(-1), x.max(-1), x.amax(-1)),
        lambda x: x.median(),
        lambda x: torch.bincount(ONCE),
        lambda x: functional.cross_entropy(x[0], SAME[0, :, 0]),
        lambda x: functional.softmax(x @ x.mT, -1),
    ],
)
def test_what_repeats_itself_is_no_finding(forward: Callable[[Tensor], object]) -> None:
    report = scan(forward, X)
    assert report.findings == ()
    assert report.clean
    assert report.operations > 0 or forward(X) is X


def test_a_draw_from_a_generator_of_the_callers_says_so_and_leaves_it_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    found = _only(scan(lambda x: torch.rand(x.shape, generator=generator), X))
    assert found.kind == "random"
    assert "generator that the caller gave" in found.why
    assert "global generator" in _only(scan(lambda x: torch.rand(x.shape), X)).why
    assert torch.equal(generator.get_state(), before)


def test_draws_from_pythons_and_numpys_generators_are_found() -> None:
    report = scan(lambda x: x * random.random() * np.random.rand(), X)
    assert _kinds(report) == {("random", "random.random"), ("random", "numpy.random")}
    assert len(report.varying()) == 2


# Modules.


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(self.linear(x))
        return out


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(), _Layer()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.cumsum(-1)


def test_dropout_in_training_mode_is_found_with_its_modules_name_and_in_evaluation_not() -> None:
    model = _Net().train()
    report = scan(model, X)
    assert [found.module for found in report.findings] == ["layers.0.drop", "layers.1.drop", ""]
    assert [found.operation for found in report.findings] == ["dropout", "dropout", "cumsum"]
    assert report.training
    report = scan(model.eval(), X)
    assert _kinds(report) == {("nondeterministic", "cumsum")}
    assert not report.training


def test_one_finding_counts_every_call_in_its_module() -> None:
    class Repeats(_Layer):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = super().forward(x)
            return x.cumsum(0).cumsum(1)

    report = scan(Repeats(), X)
    assert [(found.module, found.count) for found in report.findings] == [("drop", 3), ("", 2)]


def test_a_forward_that_is_called_directly_is_attributed_to_its_module() -> None:
    class Direct(_Net):
        def forward(self, x: Tensor) -> Tensor:
            first: Any = self.layers[0]
            return first.drop.forward(first.linear.forward(x))  # type: ignore[no-any-return]

    assert _only(scan(Direct(), X)).module == "layers.0.drop"


def test_a_shared_module_goes_by_the_name_under_which_it_is_called() -> None:
    class Half(nn.Module):
        def __init__(self, drop: nn.Module) -> None:
            super().__init__()
            self.drop = drop

        def forward(self, x: Tensor) -> Any:
            return self.drop(x)

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            drop = nn.Dropout(0.5)
            self.encoder, self.decoder = Half(drop), Half(drop)

        def forward(self, x: Tensor) -> Any:
            return self.decoder(self.encoder(x))

    assert [found.module for found in scan(Shared(), X).findings] == ["encoder.drop", "decoder.drop"]


def test_a_module_that_the_model_does_not_register_belongs_to_the_one_that_runs_it() -> None:
    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Dropout(0.5)]

        def forward(self, x: Tensor) -> Any:
            return self.hidden[0](x)

    assert _only(scan(nn.Sequential(Hides()), X)).module == "0"


def test_a_function_names_the_modules_it_runs_after_their_class() -> None:
    model = _Net()
    report = scan(lambda x: model(x).topk(2), X)
    assert [found.module for found in report.findings] == [
        "_Net.layers.0.drop",
        "_Net.layers.1.drop",
        "_Net",
        "outside",
    ]
    assert scan(model.forward, X) == scan(model, X)
    assert scan(partial(model), X).findings[0].module == "_Net.layers.0.drop"


def test_modules_around_the_scan_are_not_taken_for_the_models() -> None:
    class Around(nn.Module):
        def forward(self, x: Tensor) -> ScanReport:
            return scan(lambda x: x.topk(1), x)

    assert _only(Around()(X)).module == "outside"


# Attention.


def _attention(x: Tensor, dropout_p: float = 0.0) -> Tensor:
    return functional.scaled_dot_product_attention(x, x, x, dropout_p=dropout_p)


def _backends(*enabled: SDPBackend) -> Any:
    return sdpa_kernel(list(enabled))


def test_attention_is_chosen_by_torch_while_more_than_one_backend_is_enabled() -> None:
    with _backends(SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        found = _only(scan(_attention, X[None]))
        assert (found.kind, found.operation) == ("backend-chosen", "scaled_dot_product_attention")
        assert "enforce" in found.fix
        assert "sdpa_kernel" in found.fix


@pytest.mark.parametrize("backend", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
def test_attention_with_one_backend_is_no_finding(backend: SDPBackend) -> None:
    with _backends(backend):
        assert scan(_attention, X[None]).clean
    assert scan(lambda x: _with_one_backend(backend, x), X[None]).clean


def _with_one_backend(backend: SDPBackend, x: Tensor) -> Tensor:
    with _backends(backend):
        return _attention(x)


def test_the_backend_that_ran_is_named() -> None:
    both = _backends(SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)
    with both:
        assert _only(scan(_attention, X[None])).backend == "flash"
        # One that flash attention on a CPU cannot do.
        assert [found.backend for found in scan(partial(_attention, dropout_p=0.5), X[None]).findings] == [None, "math"]


@pytest.mark.parametrize("backends", [[SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], [SDPBackend.MATH]])
def test_dropout_inside_attention_is_found_as_that(backends: list[SDPBackend]) -> None:
    with _backends(*backends):
        report = scan(partial(_attention, dropout_p=0.5), X[None])
        assert report.findings[0].operation == "scaled_dot_product_attention"
        assert "dropout_p" in report.findings[0].fix
        assert [found.operation for found in report.varying()] == ["scaled_dot_product_attention"]
        # What is drawn elsewhere keeps its name, also right after attention.
        report = scan(lambda x: torch.bernoulli(_attention(x).sigmoid()), X[None])
        assert "bernoulli" in {found.operation for found in report.findings}


def test_a_scan_sees_the_fast_path_that_an_unscanned_run_takes() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    assert _kinds(scan(layer, X)) == {("backend-chosen", "_transformer_encoder_layer_fwd")}


# What is in force.


def test_what_enforcing_settles_is_no_finding_and_what_it_forbids_is_listed_all_the_same() -> None:
    def forward(x: Tensor) -> None:
        _attention(x[None])
        x.scatter_add(0, SAME, x)
        functional.conv1d(x, ONES)
        x.index_put((TWICE,), x)
        x.put(TWICE, ONES[0, 0, :2])
        x.topk(2)

    assert len(scan(forward, X).findings) == 6
    with difftrace.enforce():
        mode = torch.get_deterministic_debug_mode()
        with warnings.catch_warnings(record=True) as warned:
            report = scan(forward, X)
        assert torch.get_deterministic_debug_mode() == mode
    assert warned == []
    assert [found.operation for found in report.findings] == ["put", "topk"]


def test_the_reference_model_is_clean_under_enforcement(reference_model: LoadedModel) -> None:
    ids = torch.tensor([[5, 6, 0, 0, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1]])}
    with difftrace.enforce():
        report = scan(reference_model.model, inputs)
    assert report.clean
    assert report.operations > 100
    with _backends(SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        report = scan(reference_model.model, inputs)
    layers = range(reference_model.config.n_layers)
    assert [found.module for found in report.findings] == [f"model.transformer.blocks.{layer}" for layer in layers]
    assert report.varying() == ()


def test_compiled_code_runs_uncompiled_so_that_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    stances: list[str] = []

    @contextmanager
    def set_stance(stance: str) -> Iterator[None]:
        stances.append(stance)
        yield
        stances.pop()

    # Compiling for real takes seconds.
    monkeypatch.setitem(sys.modules, "torch._dynamo", ModuleType("torch._dynamo"))
    monkeypatch.setattr(torch.compiler, "set_stance", set_stance)
    seen: list[str] = []
    scan(lambda x: seen.extend(stances), X)
    assert (seen, stances) == (["force_eager"], [])


def test_a_scan_does_not_import_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    scan(_Net(), X)
    assert "torch._dynamo" not in sys.modules


# Nothing is left behind.


class _Nasty(nn.Module):
    """Changes whatever a forward can reach."""

    running: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.embedding = nn.Embedding(5, 4, max_norm=0.1)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("running", torch.zeros(4))
        self.register_buffer("scratch", torch.zeros(4), persistent=False)
        self.calls = 0
        self.history: list[Tensor] = []
        self.caches: dict[str, list[Tensor]] = {"keys": []}
        self.plain = torch.zeros(4)
        self.drop = nn.Dropout(0.5)
        self.fails = False

    def forward(self, x: Tensor, ids: Tensor, extra: dict[str, Any]) -> Tensor:
        out: Tensor = self.linear(self.drop(self.norm(x) + self.embedding(ids)))
        x.add_(1)
        x[:, 0] = 7
        ids.unsqueeze_(0)
        extra["mask"].zero_()
        extra["new"] = x
        extra["list"].append(x)
        self.running.add_(1)
        self.running = self.running * 2
        self.scratch.view(2, 2)[0].fill_(3)  # type: ignore[operator]
        self.plain.numpy()[0] = 0  # touched from outside torch, with the value it has
        self.plain.mul_(0).add_(5)
        self.linear.weight.data.mul_(2)
        self.linear.bias.data = torch.ones_like(self.linear.bias)
        self.linear.weight.requires_grad_(False)
        self.register_buffer("late", x.clone())
        self.add_module("grown", nn.Linear(1, 1))
        self.linear.register_forward_hook(lambda *given: None)
        self.calls += 1
        self.history.append(x)
        self.caches["keys"].append(x)
        self.eval()
        random.random(), np.random.rand(), torch.rand(1)
        if self.fails:
            raise ZeroDivisionError("in the model")
        return out


def _inputs() -> tuple[Tensor, Tensor, dict[str, Any]]:
    return X.clone()[:, :, :4], torch.tensor([1, 2, 3]), {"mask": torch.ones(2), "list": [torch.ones(1)]}


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything a user could notice of a model."""
    return {
        "state_dict": [(name, value.tolist()) for name, value in model.state_dict().items()],
        "buffers": [(name, value.tolist(), id(value)) for name, value in model.named_buffers()],
        "parameters": [(name, id(value), value.requires_grad, value.grad) for name, value in model.named_parameters()],
        "training": [(name, module.training) for name, module in model.named_modules()],
        "attributes": {name: repr(module.__dict__) for name, module in model.named_modules()},
    }


def _generators() -> list[object]:
    return [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_model_inputs_and_generators_are_as_before_also_after_an_exception(fails: bool, wrapped: bool) -> None:
    model = _Nasty()
    model.fails = fails
    inputs = _inputs()
    before = (_state(model), repr(inputs), _generators(), torch.is_grad_enabled())
    run: Callable[..., Any] = (lambda *given: model(*given)) if wrapped else model
    with pytest.raises(ZeroDivisionError, match="in the model") if fails else nullcontext():
        scan(run, inputs)
    assert (_state(model), repr(inputs), _generators(), torch.is_grad_enabled()) == before


def test_the_model_computes_what_it_would_have_without_the_scan() -> None:
    def outputs(scanned: bool) -> Tensor:
        torch.manual_seed(11)
        model = _Nasty()
        inputs = _inputs()
        if scanned:
            scan(model, inputs)
        out: Tensor = model(*inputs)
        return out

    with torch.random.fork_rng(devices=()):
        assert torch.equal(outputs(scanned=True), outputs(scanned=False))


def test_an_input_that_is_resized_gets_shape_and_size_back() -> None:
    x = X.clone()
    scan(lambda x: x.resize_(100).fill_(3), x)
    assert torch.equal(x, X)
    assert x.untyped_storage().nbytes() == X.nbytes


def test_memory_that_several_tensors_share_in_part_is_put_back() -> None:
    memory = np.zeros(8, dtype=np.float32)
    whole, part = torch.from_numpy(memory), torch.from_numpy(memory[2:])
    scan(lambda x: (whole.add_(1), part.add_(1)), X)
    assert not memory.any()


def test_a_scan_copies_nothing_that_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    clone = torch.UntypedStorage.clone

    def counting(storage: torch.UntypedStorage) -> torch.UntypedStorage:
        copied.append(storage.nbytes())
        return clone(storage)

    monkeypatch.setattr(torch.UntypedStorage, "clone", counting)
    model = _Net()
    scan(model, X)
    assert copied == []
    scan(lambda x: model(x).add_(1), X)
    assert copied == []
    scan(lambda x: x.add_(0), X)
    assert copied == [X.nbytes]


def test_tensors_and_gradients_of_the_caller_stay_usable() -> None:
    x = X.clone().requires_grad_()
    y = x * 2
    scan(lambda given: given * 3, y)
    y.sum().backward()
    assert x.grad is not None


def test_a_scan_in_inference_mode_sees_the_same() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(3))

    def forward(x: Tensor) -> object:
        return _attention(model(x)[None], 0.5).argsort(), x.add_(1)

    usual = scan(forward, X)
    assert len(usual.findings) >= 4
    with torch.inference_mode():
        x = X.clone()
        assert scan(forward, X).findings == usual.findings
        assert scan(forward, x).findings == usual.findings
        assert torch.equal(x, X)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_its_own_hazards_are_found_and_its_generator_is_put_back() -> None:
    model = _Nasty().cuda()
    x, ids, extra = _inputs()
    inputs = (x.cuda(), ids.cuda(), extra)
    before = (_state(model), repr(inputs), torch.cuda.get_rng_state().tolist())
    report = scan(model, inputs)
    assert (_state(model), repr(inputs), torch.cuda.get_rng_state().tolist()) == before
    assert report.device == "cuda"
    assert ("random", "dropout") in _kinds(report)
    scans = scan(lambda x: (x.cumsum(0), x.index_put((TWICE.cuda(),), x, accumulate=True)), X.cuda())
    assert [found.operation for found in scans.varying()] == ["cumsum"]
    assert scans.clean is False
    assert len(scans.findings) == 1


# Inputs, outputs, errors.


class _Output(NamedTuple):
    logits: Tensor
    past: None = None


@pytest.mark.parametrize("inputs", [X, (X,), (X, 2.0), {"x": X}, {"x": X, "scale": 2.0}])
@pytest.mark.parametrize("pack", [tuple, list, lambda out: _Output(*out[:1]), lambda out: {"logits": out[0]}])
def test_inputs_come_as_tensor_tuple_or_mapping_and_any_output_will_do(
    inputs: Any, pack: Callable[[Any], object]
) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor, scale: float = 1.0) -> object:
            return pack((x.cumsum(0) * scale,))

    assert _only(scan(Model(), inputs)).operation == "cumsum"


@pytest.mark.parametrize("inputs", [[X], 3, None, "text"])
def test_other_inputs_are_refused(inputs: Any) -> None:
    with pytest.raises(ScanError, match=f"a tuple of positional arguments .* not {type(inputs).__name__}"):
        scan(_Net(), inputs)


def test_what_is_no_model_is_refused(reference_model: LoadedModel) -> None:
    with pytest.raises(ScanError, match=r"not LoadedModel; give its \.model"):
        scan(reference_model, X)  # type: ignore[arg-type]
    with pytest.raises(ScanError, match="not int"):
        scan(3, X)  # type: ignore[arg-type]


def test_a_model_that_is_not_initialised_yet_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ScanError, match=r"0\.weight is not initialised yet"):
        scan(model, X)
    assert nn.parameter.is_lazy(model[0].weight)


def test_a_model_without_weights_is_scanned_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = _Net().eval()
        report = scan(lambda x: model(x).index_put((torch.empty(2, dtype=torch.long),), x), torch.empty(2, 3, 4))
    assert [found.operation for found in report.findings] == ["cumsum", "index_put"]
    assert report.device == "meta"


def test_what_runs_on_the_cpu_beside_an_accelerator_stays_there() -> None:
    report = scan(lambda x: (x.cumsum(0), torch.ones(3).cumsum(0), torch.ones(3).topk(1)), X.to("meta"))
    assert [(found.operation, found.count) for found in report.findings] == [("cumsum", 1), ("topk", 1)]
    assert report.findings[0].sample == "float32 [2, 3, 4]"


# Operations of other libraries.


@pytest.fixture
def foreign() -> Iterator[Any]:
    """Operations as another library would register them."""
    library = torch.library.Library("scan_test", "DEF")
    library.define("plain(Tensor x) -> Tensor")
    library.define("noisy(Tensor x) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
    for name in ("plain", "noisy"):
        library.impl(name, lambda x: x + 1, "CompositeExplicitAutograd")
    yield torch.ops.scan_test
    library._destroy()


def test_operations_of_other_libraries_are_judged_by_their_tags_or_reported_as_unknown(foreign: Any) -> None:
    report = scan(lambda x: foreign.noisy(foreign.plain(x)), X)
    assert _kinds(report) == {("random", "scan_test::noisy")}
    assert report.unknown == ("scan_test::plain",)
    assert "not judged, since what they run is not known: scan_test::plain" in str(report)


@pytest.fixture
def higher_order() -> Iterator[Any]:
    """An operation that runs a function, as torch's own `cond` and `flex_attention` do."""

    class RunsAFunction(HigherOrderOperator):
        def __init__(self) -> None:
            super().__init__("scan_test_run")

        def __call__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Any:
            return super().__call__(function, x)

    operation = RunsAFunction()
    operation.py_impl(torch._C.DispatchKey.CompositeExplicitAutograd)(lambda function, x: function(x))
    operation.py_autograd_impl(lambda function, x: function(x))
    yield operation
    torch._ops._higher_order_ops.pop("scan_test_run")


def test_an_operation_that_runs_a_function_is_run_and_reported_as_unknown(higher_order: Any) -> None:
    report = scan(lambda x: higher_order(torch.neg, x).topk(1), X)
    assert _kinds(report) == {("tie-unspecified", "topk")}
    assert report.unknown == ("scan_test_run",)


# The table.


def test_the_table_knows_every_random_operation_of_torch() -> None:
    missing = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, name = schema.name.split("::")
        packet = getattr(torch.ops.aten, name, None) if namespace == "aten" else None
        if packet is None or not hasattr(packet, "overloads"):
            continue
        tags = getattr(packet, schema.overload_name or "default").tags
        draws = any("Generator" in str(argument.type) for argument in schema.arguments)
        returns = bool(schema.returns) and any("Tensor" in str(one.type) for one in schema.returns)
        backward = "backward" in name
        if (draws or torch.Tag.nondeterministic_seeded in tags) and returns and not backward:
            rows = hazards_of(name) or ()
            if not any(row.kind == "random" for row in rows) and name not in REPEATED_THOUGH_TAGGED:
                missing.add(name)
    assert missing == set()


@pytest.mark.skipif(not hasattr(torch.Tag, "nondeterministic_bitwise"), reason="this torch lacks newer operations")
def test_every_operation_in_the_table_exists() -> None:
    public = {name for name in HAZARDS if hasattr(functional, name)} | {"random.random", "numpy.random"}
    newer = {"_flash_attention_forward_no_dropout_inplace", "_cudnn_attention_forward", "flex_attention"}
    unknown = {
        name
        for name in HAZARDS
        if "::" not in name and not any(hasattr(torch.ops.aten, form) for form in (name, f"{name}_"))
    }
    assert unknown <= public | newer


# The report.


def _finding(**changes: Any) -> Finding:
    values: dict[str, Any] = {
        "kind": "nondeterministic",
        "operation": "cumsum",
        "module": "a",
        "count": 1,
        "sample": "float32 [2]",
        "devices": ("cuda",),
        "why": "why",
        "fix": "fix",
        "source": "source",
    }
    return Finding(**values | changes)


def _report(*findings: Finding, **changes: Any) -> ScanReport:
    return ScanReport(findings, **{"operations": 9, "device": "cpu", "training": False, "torch": "2.13"} | changes)


def test_equal_runs_differ_where_a_random_or_nondeterministic_operation_concerns_the_device() -> None:
    report = _report(
        _finding(),
        _finding(kind="random", devices=("any",)),
        _finding(kind="tie-unspecified", devices=("any",)),
        _finding(kind="backend-chosen", devices=("any",)),
    )
    assert report.varying() == report.findings[1:2]
    assert report.varying("cuda") == report.findings[:2]
    assert not report.clean


def test_the_gravest_findings_come_first() -> None:
    report = scan(lambda x: (_attention(x[None]), x.topk(1), x.cumsum(0), torch.rand(1)), X)
    assert [found.kind for found in report.findings][:3] == ["random", "nondeterministic", "tie-unspecified"]


def test_the_text_says_what_where_why_and_how_to_mend_it_within_100_columns() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a_module_with_quite_a_long_name = nn.ModuleList(nn.Sequential(nn.Dropout()) for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.a_module_with_quite_a_long_name:
                x = layer(x)
            return x.cumsum(-1)

    text = str(scan(Deep(), X))
    assert all(len(line) <= 100 for line in text.splitlines())
    first = text.splitlines()
    assert first[0] == "random: dropout, 6 times"
    assert first[1].startswith("  in   a_module_with_quite_a_long_name.0.0, ")
    assert "and 2 more" in text
    assert "nondeterministic on CUDA/ROCm: cumsum, 1 time\n  in   the model itself" in text
    assert "  on   float32 [2, 3, 4]\n" in text
    assert "\n  why  " in text
    assert "\n  fix  " in text
    assert first[-1] == "7 findings in 25 operations on cpu, in training mode"
    assert str(_report()) == "no findings in 9 operations on cpu, in evaluation mode"


def test_hostile_names_reach_the_terminal_defused() -> None:
    report = _report(_finding(module="x\x1b[31m\n::error::"), unknown=("y\x1b[0m::z",))
    assert "\x1b" not in str(report)
    assert not any(line.startswith("::") for line in str(report).splitlines())


def test_the_json_keeps_its_schema() -> None:
    report = scan(lambda x: (_Net()(x), _attention(x[None])), X)
    assert report.findings
    assert violation("scan", report.to_json()) is None
    assert violation("scan", report.to_json() | {"device": 3}) is not None
    assert violation("scan", _report().to_json()) is None
