"""The text of a bisection says what to look at, within a hundred columns, whatever the names hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from difftrace.core.bisection import Against, Bisection
from difftrace.core.comparison import Divergence
from difftrace.core.error_gain import ErrorGain
from difftrace.core.first_non_finite import FirstNonFinite
from difftrace.core.module_difference import ModuleFinding, Point, StatePair
from difftrace.core.module_trace import CallRecord, GoldenLayers, ModuleRecord, ModuleTrace, TraceOrigin
from difftrace.core.recording import Baseline, ModelIdentity, ProbeStep
from difftrace.core.schemas import violation
from difftrace.reports.bisection import bisection_lines, finding_lines
from difftrace.reports.columns import width
from difftrace.reports.layers import layers_lines, probe_lines

BLOCK = "model.transformer.blocks.31"
GOLDEN, HERE = (f"sha256:{letter * 64}" for letter in "ab")
ENVIRONMENT = {"dtype": "bfloat16", "platform_key": "cuda-sm90", "canary": GOLDEN, "torch": "2.13.0"}
ORIGIN = TraceOrigin(GOLDEN, 5, None, ModelIdentity("LLaDA", None, None, None, None, 10, 9), ENVIRONMENT)
ELSEWHERE = replace(ORIGIN, environment={**ENVIRONMENT, "canary": HERE, "platform_key": "rocm-gfx942"})

FINDING = ModuleFinding(
    kind="module",
    module=f"{BLOCK}.q_proj",
    class_name="Linear",
    ordinal=0,
    after=None,
    before=None,
    detail=None,
    state=(StatePair(f"{BLOCK}.q_proj.weight", "parameter", GOLDEN, GOLDEN, True),),
    changed=(),
    error_before=0.0,
    error_after=3.4e-5,
    error_at_output=4.9e-6,
    non_finite=(0, 0),
)
BETWEEN = replace(
    FINDING,
    kind="between modules",
    module=BLOCK,
    class_name="Block",
    state=(),
    after=Point(f"{BLOCK}.v_proj", "output"),
    before=Point(f"{BLOCK}.attn_out", "input"),
)
GAIN = ErrorGain(f"{BLOCK}.ff_out", "Linear", 0, None, None, 0.002, 0.025, 12.3)
SMALL = ErrorGain(BLOCK, "Block", 0, BETWEEN.after, BETWEEN.before, 0.003, 0.004, 1.3)
NOTHING = Bisection(
    ORIGIN, 16, 5, "given", "not compared", None, modules=67, calls=65, changed_identity=(), unseen=(),
    draws_random_numbers=False, repeat=None, against=None,
)  # fmt: skip
DIVERGES = Divergence("decision", 0, 5, 12, 7, 8, 5, 5)


def compared(finding: ModuleFinding | None, *gains: ErrorGain, origin: TraceOrigin = ORIGIN, **more: Any) -> Bisection:
    return replace(NOTHING, against=Against("file", "layers.json", origin, finding, gains), **more)


def text(found: Bisection) -> str:
    """The lines, joined after a look at what holds for all of them."""
    lines = bisection_lines(found, "tests/__difftrace__/test_sum/test_sum.json")
    for line in lines:
        assert line.isprintable()
        assert width(line) <= 100 or "difftrace " in line or "layers.json" in line
    assert violation("bisection", json.loads(json.dumps(found.to_json(), allow_nan=False))) is None
    return "\n".join(lines)


def test_a_module_whose_parameters_agree_is_named_with_their_digest() -> None:
    said = text(compared(FINDING))
    assert f"first difference: {BLOCK}.q_proj (Linear)\n" in said
    assert "it was given the same and returned something else; its parameters agree (weight" in said
    assert "sha256:aaaaaaaaaaaa…" in said
    assert "relative difference 3.4e-05 there, 4.9e-06 in what the model returns" in said
    assert "golden  layers.json: LLaDA, bfloat16 on cuda-sm90, the same environment" in said
    assert "canvas  before step 5 of 0..15, as asked for" in said


def test_changed_parameters_show_both_digests_and_what_else_changed() -> None:
    weight, bias, other = (
        StatePair(f"{BLOCK}.q_proj.{name}", "parameter", GOLDEN, HERE, False) for name in ("weight", "bias", "other")
    )
    finding = replace(FINDING, kind="parameters", state=(weight, bias), changed=(weight, bias, other))
    said = text(compared(finding))
    assert "everything before it agrees, but its parameters differ:" in said
    assert "    weight: golden sha256:aaaaaaaaaaaa…, here sha256:bbbbbbbbbbbb…" in said
    assert f"parameters and buffers that differ elsewhere: {BLOCK}.q_proj.other" in said


def test_parameters_without_effect_are_said_to_be_that() -> None:
    pair = StatePair("wte.weight", "parameter", GOLDEN, HERE, False)
    finding = replace(FINDING, kind="parameters", state=(pair,), changed=(pair,), error_after=0.0, error_at_output=0.0)
    assert "its parameters differ, without any effect on this canvas:" in text(compared(finding))


def test_a_part_between_modules_is_named_by_both_ends() -> None:
    said = " ".join(text(compared(BETWEEN)).split())
    assert f"first difference: {BLOCK} (Block) itself, between v_proj's output and attn_out's input" in said
    assert "every module before agrees; it has no parameters of its own" in said


def test_run_to_run_comes_first_and_names_where_it_begins() -> None:
    said = text(compared(BETWEEN, repeat=replace(FINDING, ordinal=1)))
    assert "RUN_TO_RUN: the same canvas twice gives different results" in said
    assert f"  first in {BLOCK}.q_proj (Linear), call 2 of it" in said
    assert f"from the golden run it first differs in {BLOCK} (Block)" in said
    assert "first difference" not in said


def test_elsewhere_the_part_that_stands_out_leads() -> None:
    said = text(compared(FINDING, GAIN, SMALL, origin=ELSEWHERE))
    assert f"the error grows most in {BLOCK}.ff_out (Linear): 12.3-fold" in said
    assert f"    12.3  2.0e-03 → 2.5e-02   {BLOCK}.ff_out" in said
    assert f"     1.3  3.0e-03 → 4.0e-03   {BLOCK}: v_proj's output → attn_out's input" in said
    assert "another environment" in said
    assert "environment.platform_key: rocm-gfx942 → cuda-sm90" in said


def test_elsewhere_rounding_is_called_rounding() -> None:
    said = text(compared(FINDING, SMALL, origin=ELSEWHERE))
    assert "no module stands out: the error grows nowhere more than 1.3-fold, as rounding does" in said


def test_elsewhere_changed_weights_lead_and_computed_tables_do_not() -> None:
    table = StatePair("rope.inv_freq", "non-persistent buffer", GOLDEN, HERE, False)
    weight = StatePair("wte.weight", "parameter", GOLDEN, HERE, False)
    finding = replace(FINDING, changed=(table,))
    assert "weights differ" not in text(compared(finding, SMALL, origin=ELSEWHERE))
    said = text(compared(replace(finding, changed=(table, weight)), GAIN, origin=ELSEWHERE))
    assert "weights differ, which no environment explains: wte.weight" in said


def test_no_difference_and_a_divergence_point_at_the_sampler() -> None:
    said = text(compared(None, decisions="diverge", divergence=DIVERGES, step_choice="first divergent"))
    assert "no difference: on this canvas every module computes what it does in the golden run" in said
    assert "not the model has changed, but what samples from it" in said
    assert "the first at which the model leaves the baseline (position 12)" in said


def test_a_divergence_at_another_step_asks_for_layers_of_that_step() -> None:
    found = compared(None, decisions="diverge", divergence=replace(DIVERGES, step=9), step_choice="of the golden trace")
    said = text(found)
    assert "the model leaves the baseline at step 9, which this canvas does not show" in said
    assert "difftrace layers tests/__difftrace__/test_sum/test_sum.json --step 9 --into-baseline" in said


def test_without_a_golden_side_it_says_what_was_found_out_and_how_to_go_on() -> None:
    said = text(replace(NOTHING, step_choice="none diverges", decisions="agree", changed_identity=("weights",)))
    assert "every module repeats itself bit for bit; there is no golden side to compare with" in said
    assert "run again, the model takes the golden decision at every step" in said
    assert "as it is stored, the model has other weights than the one that was recorded" in said
    assert "difftrace layers tests/__difftrace__/test_sum/test_sum.json --step 5 --into-baseline" in said
    assert "with -o layers.json instead, and bisect with --against layers.json" in said


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("given", "before step 5 of 0..15, the probe nearest to step 9, as asked for"),
        ("none diverges", "before step 5 of 0..15, the first with a probe, since no step diverges"),
    ],
)
def test_a_probe_of_another_step_is_said_to_be_that(choice: Any, says: str) -> None:
    probe = Against("probe", None, ORIGIN, FINDING, ())
    said = text(replace(NOTHING, against=probe, asked_step=9, step_choice=choice))
    assert says in " ".join(said.split())
    assert "golden  probe in the baseline: LLaDA, bfloat16 on cuda-sm90, the same environment" in said
    assert "probe nearest" not in text(replace(NOTHING, against=probe))


def test_unseen_modules_random_numbers_and_nans_are_told() -> None:
    finding = replace(FINDING, non_finite=(0, 12), error_after=math.inf)
    said = text(compared(finding, unseen=("a", "b", "c", "d"), draws_random_numbers=True))
    assert "not called as modules: a, b, c and 1 more" in said
    assert "is a dropout left on?" in said
    assert "values that are NaN or infinite: golden 0, here 12" in said
    assert "relative difference inf there" in said


@pytest.mark.parametrize(
    ("kind", "detail", "says"),
    [
        ("input", None, "the model itself was given something else"),
        ("structure", "golden: a is called; observed: b is called", "golden: a is called; observed: b is called"),
    ],
)
def test_what_cannot_be_blamed_on_a_module_is_said_plainly(kind: Any, detail: str | None, says: str) -> None:
    finding = replace(FINDING, kind=kind, module="", class_name="Model", detail=detail, state=())
    said = text(compared(finding, origin=ELSEWHERE))
    assert "first difference: the model (Model)" in said
    assert says in said


def test_where_nan_begins_leads_whatever_else_is_found() -> None:
    first = FirstNonFinite(f"{BLOCK}.q_proj", "Linear", 0, None, None, 3, 640, in_golden=False)
    said = text(replace(NOTHING, non_finite=first))
    assert f"\n\nNON_FINITE: NaN or infinite values begin in {BLOCK}.q_proj (Linear)\n" in said
    assert "\n  it was given finite values and returned 3 of 640 that are NaN or infinite\nevery module repeats" in said
    itself = replace(first, module=BLOCK, class_name="Block", after=BETWEEN.after, before=BETWEEN.before)
    said = " ".join(text(compared(FINDING, non_finite=itself)).split())
    assert f"begin in {BLOCK} (Block) itself, between v_proj's output and attn_out's input every value before" in said
    assert "every value before is finite, there 3 of 640 are NaN or infinite first difference:" in said


def test_nan_that_the_golden_run_has_too_is_not_called_a_divergence() -> None:
    first = FirstNonFinite(f"{BLOCK}.ff_out", "Linear", 0, None, None, 3, 640, in_golden=True)
    said = text(compared(None, non_finite=first))
    assert "NON_FINITE" not in said
    assert "the golden run has such values in its logits too" in said


def test_hostile_names_are_defused() -> None:
    evil = "\x1b[31m\n::error::"
    pair = StatePair(evil, "parameter", GOLDEN, HERE, False)
    finding = replace(BETWEEN, module=evil, class_name=evil, state=(pair,), changed=(pair,), detail=evil)
    origin = replace(ELSEWHERE, environment={evil: evil})
    gain = replace(GAIN, module=evil, after=Point(evil, "input"), before=Point(f"{evil}.x", "output"))
    for where in (ORIGIN, origin):
        found = compared(finding, gain, origin=where, unseen=(evil,), repeat=None)
        broken = FirstNonFinite(evil, evil, 1, Point(evil, "input"), Point(f"{evil}.x", "output"), 1, 2)
        repeats = replace(found, repeat=finding, non_finite=broken)
        for line in (*bisection_lines(found, evil), *finding_lines(repeats)):
            assert line.isprintable()
            assert not line.lstrip().startswith("::")


def test_long_lists_and_names_stay_short() -> None:
    pairs = tuple(StatePair(f"{BLOCK}.{n}.weight", "parameter", GOLDEN, HERE, False) for n in range(300))
    finding = replace(FINDING, kind="parameters", state=pairs, changed=(*pairs, replace(pairs[0], name="x")))
    lines = bisection_lines(compared(finding), "b.json")
    assert len(lines) < 25
    assert "    and 296 more" in lines


def test_layers_say_what_was_written_and_where_it_was_not_made() -> None:
    trace = ModuleTrace((ModuleRecord(("",), "M", True, ()),), (), (CallRecord(0, None, (), ()),), False)
    layers = GoldenLayers(ORIGIN, trace)
    same = Baseline(None, None, None, {"torch": "2.13.0", "extra": 1}, {}, ())
    assert layers_lines(layers, same, "b.json", "my layers.json") == [
        "my layers.json: 1 modules, 1 calls before step 5, LLaDA, bfloat16 on cuda-sm90",
        "compare with it: difftrace bisect b.json --against 'my layers.json'",
    ]
    held = replace(same, probes=(ProbeStep(5, None, 9, GOLDEN, b"x" * 3000),))
    assert probe_lines([layers], held, "my b.json") == [
        "my b.json: probe of 4 KB: 1 modules, 1 calls before step 5, LLaDA, bfloat16 on cuda-sm90",
        "compare with it: difftrace bisect 'my b.json'",
    ]
    other = layers_lines(layers, replace(same, environment={"torch": "2.6.0"}), "b.json", "l.json")
    assert other[1:3] == [
        "not where the baseline was recorded (there → here):",
        "  environment.torch: 2.6.0 → 2.13.0",
    ]
