"""One content, one digest, whatever the layout, device and thread count; another content, another."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

import difftrace
from difftrace.core.errors import DigestError
from difftrace.determinism import block_sums
from difftrace.determinism.digest import checkpoint_digest, digest

NUMBERS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128]
NUMBERS += [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
NUMBERS += [getattr(torch, name) for name in ("uint16", "uint32", "uint64") if hasattr(torch, name)]
NUMBERS += [getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name)]

# Written by the first release that had them; digests people keep depend on these.
PINNED_TENSOR = "sha256:55c5f7d21e08c21d3cc6d9e09378287f7061e39f75b1e8622ed513b9c51275cc"
PINNED_STATE = "sha256:8d649d5a0dd57830321a91a2d6ae5bf1ea52ccf6939f10400a999951001594ec"


def _numbers(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = math.prod(shape)
    return ((torch.arange(count) * 40503 + 12345) % 65521 % 251).reshape(shape).to(dtype)


def _by_the_book(data: bytes) -> list[list[int]]:
    """The block sums in plain Python integers, from the definition."""
    keys, state, mask = [], 0, (1 << 64) - 1
    for _ in range(4 * 4096):
        state = (state + 0x9E3779B97F4A7C15) & mask
        word = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB & mask
        keys.append(word ^ (word >> 31))
    data += bytes(-len(data) % 16384)
    words = struct.unpack(f"<{len(data) // 4}i", data)
    sums = []
    for start in range(0, len(words), 4096):
        block = words[start : start + 4096]
        row = [sum(k * w for k, w in zip(keys[lane * 4096 :], block, strict=False)) & mask for lane in range(4)]
        sums.append([value - (1 << 64) if value >> 63 else value for value in row])
    return sums


@pytest.mark.parametrize("count", [0, 1, 3, 8191, 8192, 8193, 70_001])
def test_the_sums_are_those_of_the_definition(count: int) -> None:
    tensor = (torch.arange(count) * 40503 % 65521 - 32760).to(torch.int16)
    assert block_sums.block_sums(tensor).tolist() == _by_the_book(tensor.numpy().tobytes())


def test_the_value_never_changes_between_releases() -> None:
    assert digest(torch.arange(10, dtype=torch.float32).reshape(2, 5)) == PINNED_TENSOR
    assert digest({"a": torch.ones(3), "b": [1, 2.5, None, "x", b"y", True]}) == PINNED_STATE


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_a_view_equals_its_contiguous_copy_in_every_dtype(dtype: torch.dtype) -> None:
    tensor = _numbers((7, 130, 5), dtype)
    views = [tensor.permute(2, 0, 1), tensor[1:, 3:, ::2], tensor[:, :, 1], tensor[0, 0, 0]]
    assert [digest(view) for view in views] == [
        digest(view.clone(memory_format=torch.contiguous_format)) for view in views
    ]
    assert len({digest(view) for view in views}) == len(views)


@pytest.mark.parametrize("piece", [1 << 14, 3 * (1 << 14) + 2, 100])
def test_how_much_is_read_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    tensor = _numbers((60, 33, 40), torch.bfloat16)
    views = [tensor, tensor.permute(2, 0, 1), tensor[::2, 1:], tensor.flatten()[1:]]
    whole = [digest(view) for view in views]
    monkeypatch.setattr(block_sums, "_PIECE", piece)
    monkeypatch.setattr(block_sums, "_CPU_STEP", 1)
    assert [digest(view) for view in views] == whole


def test_no_piece_is_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_sums, "_PIECE", 1000)
    tensor = _numbers((60, 33, 40))
    for view in (tensor, tensor.permute(2, 0, 1), tensor.permute(1, 2, 0), tensor[:1].expand(60, 33, 40)):
        pieces = list(block_sums._pieces(view))
        assert max(map(len, pieces)) <= 1000
        assert bytes(torch.cat(pieces).numpy()) == view.contiguous().numpy().tobytes()


def test_a_contiguous_tensor_is_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_sums, "_PIECE", 1 << 14)
    tensor = _numbers((5, 4096))
    memory = tensor.untyped_storage()
    for piece in block_sums._pieces(tensor):
        assert piece.untyped_storage().data_ptr() == memory.data_ptr()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak as Linux counts it")
@pytest.mark.parametrize("layout", ["x", "x.view(4096, -1).T"])
def test_no_second_copy_is_made_in_memory(layout: str) -> None:
    program = f"""
import resource, torch
from difftrace.determinism.digest import digest
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x = torch.ones(384 << 20, dtype=torch.uint8)
digest(x[:1 << 20])
before = peak()
digest({layout})
print((peak() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 192


def test_pending_conjugation_and_negation_count() -> None:
    tensor = torch.complex(_numbers((30, 4)), _numbers((30, 4)) + 1)
    assert digest(tensor.conj()) == digest(tensor.conj().resolve_conj()) != digest(tensor)
    assert digest(tensor.conj().imag) == digest(-tensor.imag) != digest(tensor.imag)


def _with_bits(bits: int) -> torch.Tensor:
    return torch.tensor([1, bits], dtype=torch.int64).to(torch.int32).view(torch.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(6), torch.zeros(7)),
        (torch.zeros(()), torch.zeros(1)),
        (torch.zeros(0), torch.zeros(0, 3)),
        (torch.zeros(3, dtype=torch.float16), torch.zeros(3, dtype=torch.bfloat16)),
        (torch.zeros(0, dtype=torch.float16), torch.zeros(0, dtype=torch.bfloat16)),
        (torch.zeros(4, dtype=torch.bool), torch.zeros(4, dtype=torch.uint8)),
        (torch.tensor([1.0, 0.0]), torch.tensor([1.0, -0.0])),
        (torch.tensor([0.0], dtype=torch.float64), torch.tensor([-0.0], dtype=torch.float64)),
        (_with_bits(0x7FC00000), _with_bits(0x7FC00001)),
        (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])),
    ],
)
def test_contents_that_compare_equal_or_nearly_so_are_told_apart(one: torch.Tensor, other: torch.Tensor) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_single_bit_and_every_swap_is_seen(dtype: torch.dtype) -> None:
    tensor = _numbers((40_000,), dtype)
    tensor.view(torch.uint8)[:] = _numbers((tensor.view(torch.uint8).numel(),), torch.uint8)
    found = {digest(tensor)}
    places = [0, 1, 4095, 4096, 16384, 39_999]
    for place in places:
        for bit in range(8 * tensor.element_size()):
            changed = tensor.clone()
            changed.view(torch.uint8)[place * tensor.element_size() + bit // 8] ^= 1 << bit % 8
            found.add(digest(changed))
    for first, second in pairwise(places):
        swapped = tensor.clone()
        swapped[[first, second]] = tensor[[second, first]] + 1
        found.add(digest(swapped))
    assert len(found) == 1 + 8 * tensor.element_size() * len(places) + len(places) - 1


def test_blocks_that_trade_places_are_seen() -> None:
    tensor = _numbers((4, 4096))
    assert len({digest(tensor), digest(tensor[[1, 0, 2, 3]]), digest(tensor[[0, 1, 3, 2]])}) == 3


def test_thread_count_changes_nothing() -> None:
    tensor = _numbers((300_001,))
    threads = torch.get_num_threads()
    try:
        found = set()
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(digest(tensor))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_works_under_enforcement_and_leaves_gradients_alone() -> None:
    weight = nn.Parameter(_numbers((33, 7)))
    outside = digest(weight)
    with difftrace.enforce():
        assert digest(weight) == outside == digest(weight.detach())
    assert weight.grad is None
    assert weight.requires_grad


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_an_accelerator_gives_the_cpu_s_digest(dtype: torch.dtype) -> None:
    device = torch.accelerator.current_accelerator()
    tensor = _numbers((70, 130, 501), dtype)
    assert digest(tensor.to(device)) == digest(tensor)
    assert digest(tensor.to(device).permute(2, 0, 1)) == digest(tensor.permute(2, 0, 1))


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("scratch", torch.arange(4), persistent=False)


@pytest.fixture
def make() -> Callable[[], _Model]:
    def make() -> _Model:
        model = _Model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(_numbers(tuple(parameter.shape)))
        return model

    return make


@pytest.mark.parametrize("name", ["embed.weight", "norm.running_mean", "norm.num_batches_tracked", "kept", "scratch"])
def test_a_module_s_parameters_and_buffers_of_either_kind_count(make: Callable[[], _Model], name: str) -> None:
    model = make()
    before = digest(model)
    assert before == digest(make())
    dict([*model.named_parameters(), *model.named_buffers()])[name].data.flatten()[0] += 1
    assert digest(model) != before


def test_a_module_equals_the_mapping_of_its_state_in_any_order(make: Callable[[], _Model]) -> None:
    model = make()
    state = {**model.state_dict(), "scratch": model.scratch}
    assert digest(model) == digest(state) == digest(dict(reversed(state.items())))
    assert digest(model) != digest(model.state_dict())


def test_names_count(make: Callable[[], _Model]) -> None:
    one, two = torch.ones(2), torch.zeros(2)
    assert digest({"a": one, "b": two}) != digest({"a": two, "b": one})
    assert digest({"a": one}) != digest({"b": one})


def test_tied_weights_are_read_once_and_count_under_both_names(
    make: Callable[[], _Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    model.head.weight = nn.Parameter(model.embed.weight.detach().clone())
    untied = digest(model)
    model.head.weight = model.embed.weight
    read = []

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        read.append(tuple(tensor.shape))
        return block_sums.block_sums(tensor)

    monkeypatch.setitem(digest.__globals__, "block_sums", counted)
    assert digest(model) == untied
    assert read.count((5, 4)) == 1


def test_slices_of_one_memory_are_not_mistaken_for_tied() -> None:
    base = _numbers((4, 4))
    views = {"whole": base, "turned": base.T, "top": base[:2], "bits": base.view(torch.int32)}
    assert digest(views) == digest({name: view.clone() for name, view in views.items()})


def test_a_training_checkpoint_s_digest_follows_model_optimizer_and_step(make: Callable[[], _Model]) -> None:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert checkpoint_digest(model) == digest(model)
    found = {checkpoint_digest(model), checkpoint_digest(model, optimizer=optimizer)}
    found |= {checkpoint_digest(model, optimizer=optimizer, step=step) for step in (1, 2)}
    optimizer.param_groups[0]["lr"] = 0.2
    found.add(checkpoint_digest(model, optimizer=optimizer))
    before = digest(model)
    model.embed(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert digest(model) != before
    found.add(checkpoint_digest(model, optimizer=optimizer))
    assert len(found) == 6
    restored = torch.optim.AdamW(model.parameters(), lr=7.0)
    restored.load_state_dict(optimizer.state_dict())
    assert checkpoint_digest(model, optimizer=restored) == checkpoint_digest(model, optimizer=optimizer)


def test_plain_values_differ_by_type_and_by_place() -> None:
    values = [None, True, False, 1, 0, -1, 1.0, 0.0, -0.0, math.inf, "", "1", "None", b"", b"1", 1 << 80, "\ud800"]
    nested = [[], {}, [1], [[1]], [1, 1], {"1": 1}, {1: 1}, {True: 1}, [1, [2]], [[1], 2], [1, 2]]
    everything = [*values, *nested, torch.tensor(1), torch.tensor(1.0)]
    assert len({digest(value) for value in everything}) == len(everything)
    assert digest((1, 2)) == digest([1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"b": [1, object()]}}, r"^\['a'\]\['b'\]\[1\]: a builtins\.object has no content digest"),
        ({(1, 2): 3}, r"a builtins\.tuple has no"),
        ([torch.zeros(2, device="meta")], r"^\[0\]: a tensor on the meta device"),
        (torch.eye(2).to_sparse(), "^a tensor that is sparse"),
        (nn.LazyLinear(3), "not initialised"),
        (Path("x"), "has no content digest"),
    ],
)
def test_what_has_no_content_is_refused_and_located(content: object, message: str) -> None:
    with pytest.raises(DigestError, match=message):
        digest(content)


def test_a_tensor_that_stands_for_others_is_refused() -> None:
    fake = pytest.importorskip("torch._subclasses.fake_tensor")
    with fake.FakeTensorMode():
        tensor = torch.zeros(2)
    with pytest.raises(DigestError, match="FakeTensor stands for others"):
        digest(tensor)


def test_both_are_offered_at_the_top() -> None:
    assert difftrace.digest is digest
    assert difftrace.checkpoint_digest is checkpoint_digest
