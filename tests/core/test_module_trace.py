"""Traces made by hand: the first difference is named for what caused it, and growth of error is told from rounding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from difftrace.core.error_gain import error_gains
from difftrace.core.module_difference import ModuleFinding, Point, first_difference
from difftrace.core.module_trace import (
    SKETCH_BUCKETS,
    CallRecord,
    ModuleRecord,
    ModuleTrace,
    StateRecord,
    TensorRecord,
)

Values = Sequence[float]


def digest_of(content: object) -> str:
    return f"sha256:{hashlib.sha256(repr(content).encode()).hexdigest()}"


def tensor(*values: float, dtype: str = "float32", non_finite: int = 0) -> TensorRecord:
    """A tensor of at most as many values as a sketch has buckets, so that the sketch is the tensor itself."""
    sketch = (*map(float, values), *[0.0] * (SKETCH_BUCKETS - len(values)))
    return TensorRecord(
        dtype, (len(values),), digest_of((dtype, values, non_finite)), math.hypot(*values), non_finite, sketch
    )


def weight(content: object, name: str = "weight", dtype: str = "float32", **casts: object) -> StateRecord:
    """A parameter; equal contents are equal values, `casts` what it would be in another dtype."""
    digests = {other: digest_of((other, value)) for other, value in {dtype: content, **casts}.items()}
    return StateRecord(name, "parameter", dtype, (4,), digests)


@dataclass
class Call:
    """A call of the module `name` in a trace to be: what goes in, what comes out, and the calls within."""

    name: str
    given: TensorRecord | Sequence[TensorRecord]
    returned: TensorRecord
    within: list[Call] = field(default_factory=list)


def trace(root: Call, state: Mapping[str, StateRecord] | None = None, unused: Sequence[str] = ()) -> ModuleTrace:
    """Return the trace of `root`; `state` are parameters by module, `unused` modules that are not called."""
    modules: dict[str, int] = {}
    tensors: dict[TensorRecord, int] = {}
    calls: list[CallRecord] = []

    def add(call: Call, parent: int | None) -> None:
        given = [call.given] if isinstance(call.given, TensorRecord) else call.given
        index = len(calls)
        module = modules.setdefault(call.name, len(modules))
        ins, outs = (tuple(tensors.setdefault(t, len(tensors)) for t in side) for side in (given, [call.returned]))
        calls.append(CallRecord(module, parent, ins, outs))
        for inner in call.within:
            add(inner, index)

    add(root, None)
    for name in unused:
        modules.setdefault(name, len(modules))
    own = state or {}
    records = (ModuleRecord((name,), "Module", True, (own[name],) if name in own else ()) for name in modules)
    return ModuleTrace(tuple(records), tuple(tensors), tuple(calls), False)


IDS = tensor(3.0, 4.0)
EMBEDDED, MIXED, OUT = tensor(1.0, 2.0), tensor(2.0, 2.0), tensor(5.0, 1.0)
BLOCK_OUT = tensor(3.0, 1.0)


def model(
    embedded: TensorRecord = EMBEDDED,
    mixed: TensorRecord = MIXED,
    projected: TensorRecord = OUT,
    block_out: TensorRecord = BLOCK_OUT,
    **more: object,
) -> ModuleTrace:
    """An embedding, and a block that mixes (a part of its own), projects, and adds what it was given."""
    block = Call("block", embedded, block_out, [Call("block.proj", mixed, projected)])
    root = Call("", IDS, block_out, [Call("wte", IDS, embedded), block])
    return trace(root, **more)  # type: ignore[arg-type]


def found(golden: ModuleTrace, observed: ModuleTrace) -> ModuleFinding:
    finding = first_difference(golden, observed)
    assert finding is not None
    return finding


def test_starts_and_ends_come_in_the_order_in_which_they_happened() -> None:
    golden = model()
    names = [(golden.module_of(event.call).name, event.moment) for event in golden.events()]
    assert names == [
        ("", "input"), ("wte", "input"), ("wte", "output"), ("block", "input"), ("block.proj", "input"),
        ("block.proj", "output"), ("block", "output"), ("", "output"),
    ]  # fmt: skip


def test_equal_traces_have_no_difference() -> None:
    state = {"wte": weight(1), "block.proj": weight(2)}
    assert first_difference(model(state=state), model(state=state)) is None


def test_a_module_that_returns_something_else_for_the_same_is_named() -> None:
    other = tensor(1.0, 2.1)
    finding = found(model(), model(embedded=other, mixed=tensor(2.0, 2.1), block_out=tensor(3.0, 1.1)))
    assert (finding.kind, finding.module, finding.after, finding.before) == ("module", "wte", None, None)
    assert finding.error_before == 0.0
    assert finding.error_after == pytest.approx(0.1 / math.hypot(1.0, 2.1))
    assert finding.error_at_output == pytest.approx(0.1 / math.hypot(3.0, 1.0), rel=0.1)


def test_parameters_that_differ_there_are_the_reason() -> None:
    golden = model(state={"wte": weight(1), "block.proj": weight(2)})
    observed = model(projected=tensor(5.0, 1.1), state={"wte": weight(1), "block.proj": weight(3)})
    finding = found(golden, observed)
    assert (finding.kind, finding.module) == ("parameters", "block.proj")
    assert [(pair.name, pair.equal) for pair in finding.state] == [("block.proj.weight", False)]
    assert finding.state[0].golden == digest_of(("float32", 2))
    assert finding.state[0].observed == digest_of(("float32", 3))


def test_parameters_that_differ_later_are_listed_but_are_not_the_reason() -> None:
    golden = model(state={"wte": weight(1), "block.proj": weight(2)})
    observed = model(embedded=tensor(1.0, 2.1), state={"wte": weight(1), "block.proj": weight(3)})
    finding = found(golden, observed)
    assert (finding.kind, finding.module) == ("module", "wte")
    assert [pair.name for pair in finding.changed] == ["block.proj.weight"]


def test_what_a_module_is_given_differs_because_of_what_is_computed_before_it() -> None:
    finding = found(model(), model(mixed=tensor(2.0, 2.1)))
    assert (finding.kind, finding.module) == ("between modules", "block")
    assert (finding.after, finding.before) == (Point("block", "input"), Point("block.proj", "input"))


def test_what_a_module_makes_of_the_results_within_it_is_its_own() -> None:
    finding = found(model(), model(block_out=tensor(3.0, 1.1)))
    assert (finding.kind, finding.module) == ("between modules", "block")
    assert (finding.after, finding.before) == (Point("block.proj", "output"), Point("block", "output"))


def test_parameters_of_modules_that_are_never_called_belong_to_the_one_around_them() -> None:
    golden = model(state={"block.gate": weight(1)}, unused=["block.gate", "other"])
    observed = model(mixed=tensor(2.0, 2.1), state={"block.gate": weight(2)}, unused=["block.gate", "other"])
    assert [golden.modules[index].name for index in golden.unseen] == ["block.gate", "other"]
    finding = found(golden, observed)
    assert (finding.kind, finding.module) == ("parameters", "block")
    assert [pair.name for pair in finding.state] == ["block.gate.weight"]


def test_another_input_of_the_model_is_said_to_be_that() -> None:
    observed = trace(Call("", tensor(3.0, 5.0), OUT))
    assert found(trace(Call("", IDS, OUT)), observed).kind == "input"


def test_other_modules_are_a_difference_of_structure() -> None:
    two, one = (Call("", IDS, OUT, [Call(name, IDS, EMBEDDED) for name in names]) for names in (["a", "b"], ["a"]))
    missing = found(trace(two), trace(one))
    assert (missing.kind, missing.module) == ("structure", "b")
    assert missing.detail == "golden: b is called; observed: the model returns"
    other = found(trace(one), trace(Call("", IDS, OUT, [Call("c", IDS, EMBEDDED)])))
    assert other.detail == "golden: a is called; observed: c is called"


def test_another_shape_or_number_of_tensors_is_a_difference_of_structure() -> None:
    golden = trace(Call("", IDS, OUT, [Call("a", [IDS], EMBEDDED)]))
    wider = trace(Call("", IDS, OUT, [Call("a", [IDS], tensor(1.0, 2.0, 3.0))]))
    assert found(golden, wider).detail == "output of shape [2] in the golden run, [3] in the observed"
    more = trace(Call("", IDS, OUT, [Call("a", [IDS, OUT], EMBEDDED)]))
    assert found(golden, more).detail == "input of 1 tensors in the golden run, of 2 in the observed"


def test_a_module_used_under_two_names_is_compared_with_two_equal_modules() -> None:
    shared = trace(Call("", IDS, OUT, [Call("a", IDS, EMBEDDED), Call("a", EMBEDDED, MIXED)]))
    record = ModuleRecord(("a", "b"), "Module", True, ())
    tied = replace(shared, modules=(shared.modules[0], record))
    apart = trace(Call("", IDS, OUT, [Call("a", IDS, EMBEDDED), Call("b", EMBEDDED, MIXED)]))
    assert first_difference(tied, apart) is None
    other = trace(Call("", IDS, OUT, [Call("a", IDS, EMBEDDED), Call("b", EMBEDDED, tensor(2.0, 2.1))]))
    finding = found(tied, other)
    assert (finding.module, finding.ordinal) == ("a", 1)


def test_parameters_that_differ_without_any_effect_are_found_in_the_order_of_calls() -> None:
    golden = model(state={"": weight(0), "wte": weight(1), "block.proj": weight(2)})
    observed = model(state={"": weight(0), "wte": weight(9), "block.proj": weight(8)})
    finding = found(golden, observed)
    assert finding.without_effect
    assert (finding.kind, finding.module, finding.error_at_output) == ("parameters", "wte", 0.0)
    assert [pair.name for pair in finding.changed] == ["wte.weight", "block.proj.weight"]


def test_a_parameter_that_only_one_side_has_differs() -> None:
    finding = found(model(), model(state={"wte": weight(1)}))
    assert finding.changed[0].golden is None
    assert finding.changed[0].observed is not None


def test_parameters_in_two_dtypes_are_compared_in_the_one_that_both_can_be_had_in() -> None:
    wide = weight(1.01, dtype="float32", bfloat16=1, float16=1.01)
    narrow, other = weight(1, dtype="bfloat16"), weight(2, dtype="bfloat16")
    assert wide.equals(narrow) is True
    assert narrow.equals(wide) is True
    assert wide.equals(other) is False
    assert narrow.equals(weight(1, dtype="float16")) is None
    assert wide.equals(weight(1.02, dtype="float32", bfloat16=1)) is False


def test_a_distance_is_zero_unknown_or_infinite_where_numbers_do_not_tell() -> None:
    one = tensor(3.0, 4.0)
    assert one.distance(one) == 0.0
    assert one.distance(tensor(3.0, 4.5)) == pytest.approx(0.5 / math.hypot(3.0, 4.5))
    assert one.distance(tensor(3.0, 4.0, 5.0)) is None
    assert one.distance(tensor(3.0, 4.0, non_finite=1)) == math.inf
    assert tensor(0.0).distance(tensor(-0.0)) == 0.0
    integers = TensorRecord("int64", (2,), digest_of(1), None, 0, None)
    assert integers.distance(replace(integers, digest=digest_of(2))) is None


ROUNDED = {"embedded": tensor(1.0, 2.0 + 4e-7), "mixed": tensor(2.0, 2.0 + 4e-7), "projected": tensor(5.0, 1.0 + 8e-7)}


def test_the_part_whose_error_grows_most_comes_first() -> None:
    observed = model(**ROUNDED, block_out=tensor(3.0, 1.1))
    largest = error_gains(model(), observed)[0]
    assert (largest.module, largest.after, largest.before) == (
        "block", Point("block.proj", "output"), Point("block", "output"),
    )  # fmt: skip
    # The largest of what was in use where the block ends is that of the embedding.
    assert largest.error_before == pytest.approx(4e-7 / math.hypot(1.0, 2.0), rel=1e-3)
    assert largest.error_after == pytest.approx(0.1 / math.hypot(3.0, 1.1), rel=1e-3)
    assert largest.gain == pytest.approx(largest.error_after / largest.error_before)


def test_what_is_handed_on_as_it_is_was_computed_by_nobody_else() -> None:
    gains = error_gains(model(), model(**ROUNDED, block_out=tensor(3.0, 1.1)))
    parts = {(gain.module, gain.before) for gain in gains}
    # The block was given the embedding itself, and the model returns the block's result.
    between = {("block", Point("block.proj", "input")), ("block", Point("block", "output"))}
    assert parts == {("wte", None), ("block.proj", None), *between}


def test_one_rounding_is_no_growth() -> None:
    golden = trace(Call("", IDS, EMBEDDED, [Call("wte", IDS, EMBEDDED)]))
    rounded = tensor(1.0, 2.004, dtype="bfloat16")
    [gain] = error_gains(golden, trace(Call("", IDS, rounded, [Call("wte", IDS, rounded)])))
    assert gain.error_before == 0.0
    assert gain.gain == pytest.approx(0.004 / math.hypot(1.0, 2.004) / 2**-8)
    assert gain.gain < 1


def test_a_module_that_makes_the_first_nan_grows_without_bound_and_those_after_it_do_not() -> None:
    broken = tensor(2.0, 0.0, non_finite=1)
    after = tensor(5.0, 0.0, non_finite=1)
    gains = error_gains(model(), model(mixed=broken, projected=after, block_out=after))
    assert gains[0].before == Point("block.proj", "input")
    assert gains[0].gain == math.inf
    assert [gain.gain for gain in gains[1:]] == [0.0] * 3
