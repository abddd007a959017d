"""Traces made by hand: the module that makes the first NaN or infinity is named, not one that hands it on."""

from __future__ import annotations

from dataclasses import replace

from difftrace.core.first_non_finite import FirstNonFinite, first_non_finite
from difftrace.core.module_difference import Point
from difftrace.core.module_trace import CallRecord, ModuleRecord, ModuleTrace, TensorRecord

# Tensors of 2 × 3 values: token ids, finite numbers, numbers of which some are not.
IDS = TensorRecord("int64", (2, 3), "sha256:ids", None, 0, None)
FINE = TensorRecord("float32", (2, 3), "sha256:fine", 1.0, 0, (1.0,))
CHOSEN = replace(IDS, digest="sha256:chosen")
MASK = TensorRecord("float32", (2, 3), "sha256:mask", 0.0, 2, (0.0,))
BROKEN = TensorRecord("float32", (2, 3), "sha256:broken", 1.0, 4, (1.0,))
WORSE = TensorRecord("float32", (2, 3), "sha256:worse", 0.0, 6, (0.0,))

MODEL, EMBEDDING, BLOCK, NORM, PROJECTION = range(5)
NAMES = ("", "wte", "blocks.0", "blocks.0.norm", "blocks.0.proj")

Given = tuple[TensorRecord, ...]


def trace(*calls: tuple[int, int | None, Given, Given]) -> ModuleTrace:
    """Return the trace of calls: module, index of the call around it, what it is given and what it returns."""
    tensors: dict[TensorRecord, int] = {}

    def indices(side: Given) -> tuple[int, ...]:
        return tuple(tensors.setdefault(one, len(tensors)) for one in side)

    records = [CallRecord(module, parent, indices(given), indices(back)) for module, parent, given, back in calls]
    modules = tuple(ModuleRecord((name,), "Module", True, ()) for name in NAMES)
    return ModuleTrace(modules, tuple(tensors), tuple(records), False)


def model(
    embedded: TensorRecord = FINE,
    normed: TensorRecord = FINE,
    mixed: TensorRecord = FINE,
    projected: TensorRecord = FINE,
    out: TensorRecord = FINE,
    *more: TensorRecord,
) -> ModuleTrace:
    """An embedding, then a block that normalises, mixes by itself, projects and adds; `more` is given to the block."""
    return trace(
        (MODEL, None, (IDS,), (out,)),
        (EMBEDDING, 0, (IDS,), (embedded,)),
        (BLOCK, 0, (embedded, *more), (out,)),
        (NORM, 2, (embedded,), (normed,)),
        (PROJECTION, 2, (mixed,), (projected,)),
    )


def found(traced: ModuleTrace) -> FirstNonFinite:
    first = first_non_finite(traced)
    assert first is not None
    return first


def test_a_model_that_returns_finite_values_has_no_first_one() -> None:
    assert first_non_finite(model()) is None


def test_the_module_that_was_given_finite_values_is_named_with_how_many_are_not() -> None:
    first = found(model(FINE, BROKEN, WORSE, WORSE, WORSE))
    assert (first.module, first.class_name, first.ordinal) == ("blocks.0.norm", "Module", 0)
    assert (first.after, first.before) == (None, None)
    assert (first.non_finite, first.values) == (4, 6)


def test_what_a_module_computes_between_others_is_its_own() -> None:
    first = found(model(FINE, FINE, BROKEN, WORSE, WORSE))
    assert first.module == "blocks.0"
    assert (first.after, first.before) == (Point("blocks.0.norm", "output"), Point("blocks.0.proj", "input"))


def test_what_a_module_makes_of_the_results_within_it_is_its_own() -> None:
    first = found(model(FINE, FINE, FINE, FINE, BROKEN))
    assert first.module == "blocks.0"
    assert (first.after, first.before) == (Point("blocks.0.proj", "output"), Point("blocks.0", "output"))


def test_infinities_that_a_module_computes_finite_numbers_from_are_passed_over() -> None:
    traced = trace(
        (MODEL, None, (IDS,), (BROKEN,)),
        (BLOCK, 0, (FINE, MASK), (FINE,)),
        (PROJECTION, 0, (FINE, MASK), (BROKEN,)),
    )
    assert found(traced).module == "blocks.0.proj"
    swallowed = trace((MODEL, None, (IDS,), (FINE,)), (BLOCK, 0, (FINE, MASK), (FINE,)))
    assert first_non_finite(swallowed) is None


def test_indices_chosen_by_broken_numbers_do_not_make_them_harmless() -> None:
    traced = trace(
        (MODEL, None, (IDS,), (WORSE,)),
        (NORM, 0, (FINE,), (BROKEN,)),
        (BLOCK, 0, (BROKEN,), (CHOSEN,)),
        (PROJECTION, 0, (BROKEN,), (WORSE,)),
    )
    assert found(traced).module == "blocks.0.norm"


def test_a_later_call_of_a_module_is_told_by_its_number() -> None:
    calls = [(NORM, 0, (FINE,), (FINE,)), (NORM, 0, (FINE,), (BROKEN,))]
    assert found(trace((MODEL, None, (IDS,), (BROKEN,)), *calls)).ordinal == 1
