"""Which rule comes first, what went in, what happened on the way, and what a batch reports."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import difftrace
from difftrace.core.classification import Classification, classify, invalid
from difftrace.core.evidence import Evidence
from difftrace.core.outcome import Outcome
from difftrace.core.recording import Baseline, Budget, SamplerIdentity, SequenceRecord
from difftrace.core.suspects import Suspect
from difftrace.core.trajectory import Trajectory

Simulated = Callable[..., tuple[Trajectory, Evidence]]
Held = Callable[..., Baseline]
Change = Callable[[Baseline], Baseline]

BUDGET = Budget(0.56, 0.56, 0.14, {})


def record(
    run: tuple[Trajectory, Evidence | None], text: str | None = None, prompt: str | None = None
) -> SequenceRecord:
    return SequenceRecord(run[0], text, prompt, run[1])


@pytest.fixture
def golden(simulated: Simulated, held: Held) -> Baseline:
    return held(record(simulated(), "42", "12 + 30 ="))


def with_model(**fields: Any) -> Change:
    def change(baseline: Baseline) -> Baseline:
        assert baseline.model is not None
        return dataclasses.replace(baseline, model=dataclasses.replace(baseline.model, **fields))

    return change


def with_sampler(name: str = "llada", version: int = 1, **arguments: Any) -> Change:
    return lambda baseline: dataclasses.replace(baseline, sampler=SamplerIdentity(name, version, arguments))


def with_trajectory(**fields: Any) -> Change:
    def change(baseline: Baseline) -> Baseline:
        one = baseline.sequences[0]
        trajectory = dataclasses.replace(one.trajectory, **fields)
        return dataclasses.replace(
            baseline, sequences=(dataclasses.replace(one, trajectory=trajectory, evidence=None),)
        )

    return change


def with_record(**fields: Any) -> Change:
    return lambda baseline: dataclasses.replace(
        baseline, sequences=(dataclasses.replace(baseline.sequences[0], **fields),)
    )


def together(*changes: Change) -> Change:
    def change(baseline: Baseline) -> Baseline:
        for one in changes:
            baseline = one(baseline)
        return baseline

    return change


OTHER = f"sha256:{'f' * 64}"
INITIAL = [0] * 15 + [3]

IDENTITY_CASES: dict[str, tuple[Change, str | None, str]] = {
    "another prompt": (with_trajectory(prompt=[5, 6]), "INPUT", "The prompts differ, first at token 0"),
    "padding": (with_trajectory(padding=2), "INPUT", "0 positions of padding, the observed run 2"),
    "an attention mask": (with_trajectory(attention_mask=[0] + [1] * 15), "INPUT", "masks differ, first at position 0"),
    "another tokenizer": (with_model(tokenizer=OTHER), "INPUT", "The tokenizers differ in their files."),
    "another reading of the prompt": (with_record(prompt_text="13"), "INPUT", "read as another text"),
    "another reading of the result": (with_record(text="43"), "INPUT", "read as another text"),
    "two sequences": (
        lambda b: dataclasses.replace(b, sequences=b.sequences * 2),
        "INPUT",
        "1 sequences in the golden, 2 in the observed run",
    ),
    "another first canvas": (with_trajectory(initial=INITIAL), "INPUT", "first canvases differ, first at position 15"),
    "another sampler": (with_sampler("dream", steps=8, seed=0), "CONFIG", "name differs: llada → dream."),
    "another version of it": (with_sampler(version=2, steps=8, seed=0), "CONFIG", "version differs: 1 → 2."),
    "another seed": (with_sampler(steps=8, seed=1), "CONFIG", "argument seed differs: 0 → 1."),
    "a seed that is no number": (with_sampler(steps=8, seed=False), "CONFIG", "argument seed differs: 0 → False."),
    "a new argument": (with_sampler(steps=8, seed=0, x=1), "CONFIG", "argument x differs: nothing → 1."),
    "an argument that only one side names, at its default": (
        with_sampler(steps=8, seed=0, temperature=0.0, cfg_scale=0, tie_break="stable"),
        "IDENTICAL",
        "Nothing",
    ),
    "an argument that only one side names, at another value": (
        with_sampler(steps=8, seed=0, temperature=0.5),
        "CONFIG",
        "argument temperature differs: 0.0 → 0.5.",
    ),
    "an argument that has no default, on one side": (with_sampler(seed=0), "CONFIG", "steps differs: 8 → nothing."),
    "several arguments": (
        with_sampler(steps=9, seed=1, a=1, b=2, c=3, d=4),
        "CONFIG",
        "argument steps differs: 8 → 9; so do argument seed, argument a, argument b and 2 more.",
    ),
    "an argument from a hostile file": (
        with_sampler(**{"steps": 8, "seed": 0, "\x1b[31m": "\n::error::" * 99}),
        "CONFIG",
        r"argument \x1b[31m differs: nothing → \n::error::",
    ),
    "another configuration": (with_model(config=OTHER), "CONFIG", "models differ in their configuration."),
    "another vocabulary": (with_model(vocab_size=1000), "CONFIG", "size of their vocabulary: 999 → 1000."),
    "another mask": (with_model(mask_token_id=1), "CONFIG", "the id of the mask: 0 → 1."),
    "other weights": (with_model(weights=OTHER), "WEIGHTS", "weights differ: their digests"),
    "another name": (with_model(name="n", revision="0" * 40), "IDENTICAL", "Nothing differs"),
    "another dtype": (lambda b: dataclasses.replace(b, environment={"dtype": "bfloat16"}), "IDENTICAL", "Nothing"),
    "the same number in another type": (with_sampler(steps=8.0, seed=0), "IDENTICAL", "Nothing"),
}


@pytest.mark.parametrize(("change", "name", "reason"), IDENTITY_CASES.values(), ids=IDENTITY_CASES)
def test_what_went_in(golden: Baseline, change: Change, name: str, reason: str) -> None:
    for found in (classify(golden, change(golden)), classify(golden, change(golden), budget=BUDGET)):
        assert found.divergence_class == name
        assert reason in found.reason
        assert found.reason.isprintable()


ORDER: list[tuple[str, Change]] = [
    ("INPUT", with_trajectory(prompt=[5, 6])),
    ("CONFIG", with_sampler(steps=8, seed=1)),
    ("INPUT", with_trajectory(initial=INITIAL)),
    ("WEIGHTS", with_model(weights=OTHER)),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_of_several_differences_the_first_rule_names_the_class(golden: Baseline, first: int) -> None:
    found = classify(golden, together(*(change for _, change in ORDER[first:]))(golden))
    assert found.divergence_class == ORDER[first][0]


def test_a_longer_canvas_is_blamed_on_the_argument_that_made_it_longer(held: Held, simulated: Simulated) -> None:
    sides = []
    for length in (16, 24):
        trajectory = dataclasses.replace(simulated(length=length)[0], attention_mask=[0] + [1] * (length - 1))
        sides.append(held(record((trajectory, None)), sampler=SamplerIdentity("llada", 1, {"gen_length": length})))
    found = classify(*sides)
    assert (found.divergence_class, found.reason) == ("CONFIG", "The sampler's argument gen_length differs: 16 → 24.")
    assert classify(sides[0], dataclasses.replace(sides[1], sampler=None)).divergence_class == "INPUT"


def test_weights_that_changed_no_token_are_weights(golden: Baseline) -> None:
    found = classify(golden, with_model(weights=OTHER)(golden))
    assert found.outcome == Outcome("IDENTICAL", 0, 0, True)
    assert found.divergence_class == "WEIGHTS"
    assert found.cannot_tell == ()


def test_the_place_of_a_prompt_token_is_given(golden: Baseline) -> None:
    longer = with_trajectory(prompt=[5, 6])(golden)
    found = classify(longer, with_trajectory(prompt=[5, 7])(golden))
    assert (found.sequence, found.step, found.position) == (0, None, 1)


def test_what_a_side_does_not_name_is_not_compared_and_said(golden: Baseline) -> None:
    bare = dataclasses.replace(golden, model=None, sampler=None)
    for one, other, who in (
        (golden, bare, "the observed run names"),
        (bare, golden, "the golden names"),
        (bare, bare, "the golden and the observed run name"),
    ):
        found = classify(one, other)
        assert found.divergence_class == "IDENTICAL"
        assert found.cannot_tell == (
            f"Whether the model's weights, configuration and tokenizer are the same: {who} no digest.",
            f"Whether the sampler and its arguments are the same: {who} none.",
        )
    found = classify(golden, with_model(weights=None)(golden))
    assert found.cannot_tell == ("Whether the model's weights are the same: the observed run names no digest.",)


def test_a_run_is_identical_with_itself(golden: Baseline) -> None:
    found = classify(golden, golden)
    assert found == Classification(
        divergence_class="IDENTICAL",
        reason="Nothing differs that is recorded.",
        sequence=None,
        step=None,
        position=None,
        kind=None,
        noise=(),
        decided_by=None,
        tau_source="default for float32",
        cannot_tell=(),
        outcome=Outcome("IDENTICAL", 0, 0, True),
        suspects=(),
    )
    assert (found.epsilon, found.tau) == (None, None)


def test_equal_decisions_without_evidence_are_identical_as_far_as_recorded(golden: Baseline) -> None:
    bare = with_record(evidence=None)(golden)
    found = classify(golden, bare)
    assert found.divergence_class == "IDENTICAL"
    assert found.cannot_tell == ("Whether the logits are the same: the observed run came without evidence.",)
    assert "the golden and the observed run came" in classify(bare, bare).cannot_tell[0]


def test_the_order_within_a_step_does_not_count(golden: Baseline) -> None:
    one = golden.sequences[0].trajectory
    turned = {name: getattr(one, name)[::-1] for name in ("steps", "positions", "tokens")}
    assert classify(golden, with_trajectory(**turned)(golden)).divergence_class == "IDENTICAL"


def test_an_unreadable_baseline_has_a_class_of_its_own() -> None:
    found = invalid("golden.json: is not complete JSON")
    assert (found.divergence_class, found.reason) == ("INVALID", "golden.json: is not complete JSON")
    assert found.outcome is None


# NON_FINITE


def with_evidence(**columns: Any) -> Change:
    def change(baseline: Baseline) -> Baseline:
        evidence = baseline.sequences[0].evidence
        assert evidence is not None
        return with_record(evidence=dataclasses.replace(evidence, **columns))(baseline)

    return change


def counts(**at: int) -> np.ndarray[Any, Any]:
    values = np.zeros(8, dtype=np.int64)
    for step, count in at.items():
        values[int(step[1:])] = count
    return values


def seed_of(simulated: Simulated, held: Held, wanted: str, step: int) -> int:
    """Return a seed whose runs with and without noise are of the class `wanted` and differ from `step` on."""
    for seed in range(100):
        found = classify(*(held(record(simulated(seed, noise=noise)), dtype="bfloat16") for noise in (0.0, 0.1)))
        if (found.divergence_class, found.step) == (wanted, step):
            return seed
    raise AssertionError(f"no seed gives {wanted} at step {step}")


def diverging(simulated: Simulated, held: Held) -> tuple[Baseline, Baseline]:
    """A pair whose decisions part at step 3 for no reason but noise."""
    seed = seed_of(simulated, held, "NEAR_TIE", 3)
    golden, observed = (held(record(simulated(seed, noise=noise)), dtype="bfloat16") for noise in (0.0, 0.1))
    return golden, observed


def unlike(simulated: Simulated, held: Held) -> Baseline:
    """The observed run of `diverging` with other noise."""
    seed = seed_of(simulated, held, "NEAR_TIE", 3)
    return held(record(simulated(seed, noise=0.1, noise_seed=2)), dtype="bfloat16")


def test_logits_that_are_not_finite_in_one_run_alone(golden: Baseline) -> None:
    for one, other in ((0, 4), (4, 0), (3, 4)):
        found = classify(
            with_evidence(non_finite=counts(s2=one))(golden), with_evidence(non_finite=counts(s2=other, s5=1))(golden)
        )
        assert (found.divergence_class, found.sequence, found.step) == ("NON_FINITE", 0, 2)
        assert f"{one} of them at step 2 in the golden, {other} in the observed run" in found.reason


def test_logits_that_are_as_little_finite_in_both_runs_differ_in_nothing(golden: Baseline) -> None:
    odd = with_evidence(non_finite=counts(s2=4))(golden)
    assert classify(odd, odd).divergence_class == "IDENTICAL"


def test_logits_that_are_not_finite_at_or_before_the_parting_outrank_it(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    for step, name in ((0, "NON_FINITE"), (3, "NON_FINITE"), (4, "NEAR_TIE")):
        odd = with_evidence(non_finite=counts(**{f"s{step}": 4}))
        assert classify(odd(golden), odd(observed)).divergence_class == name
        assert classify(golden, odd(observed)).divergence_class == name
        assert classify(odd(golden), observed).divergence_class == name


def test_ids_that_are_never_finite_are_no_fault(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    evidence = golden.sequences[0].evidence
    assert evidence is not None
    always = with_evidence(non_finite=3 * evidence.candidates)
    assert classify(always(golden), always(observed)).divergence_class == "NEAR_TIE"
    assert classify(always(golden), observed).divergence_class == "NON_FINITE"
    scores = evidence.top_scores.copy()
    scores[0] = np.nan
    nowhere = with_evidence(non_finite=3 * evidence.candidates, top_scores=scores)
    assert classify(nowhere(golden), always(observed)).divergence_class == "NON_FINITE"


def test_a_model_that_returns_nan_is_found(simulated: Simulated, held: Held) -> None:
    def broken(step: int, logits: Any) -> Any:
        if step == 4:
            logits[5] = np.nan
        return logits

    found = classify(held(record(simulated())), held(record(simulated(spoil=broken))))
    assert (found.divergence_class, found.step) == ("NON_FINITE", 4)


# RUN_TO_RUN


def test_a_run_that_does_not_repeat_itself(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    again = unlike(simulated, held)
    found = classify(golden, observed, repeated=again)
    assert found.divergence_class == "RUN_TO_RUN"
    assert found.step == 0
    assert "its logits differ at step 0" in found.reason
    assert classify(golden, golden, repeated=again).divergence_class == "RUN_TO_RUN"
    bare = with_record(evidence=None)
    found = classify(golden, bare(observed), repeated=bare(again))
    assert found.divergence_class == "RUN_TO_RUN"
    assert "its decisions differ at step" in found.reason


def test_a_repetition_that_draws_other_random_numbers(simulated: Simulated, held: Held) -> None:
    golden, observed, again = (held(record(simulated(temperature=0.5, stream=stream))) for stream in (0, 1, 2))
    found = classify(golden, observed, repeated=again)
    assert found.divergence_class == "RUN_TO_RUN"
    assert "its random numbers differ at step 0" in found.reason
    assert classify(golden, observed, repeated=observed).divergence_class == "RNG"


def test_a_repetition_that_agrees_leaves_the_class_to_the_other_rules(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    found = classify(golden, observed, repeated=observed)
    assert found.divergence_class == "NEAR_TIE"
    assert found.cannot_tell == ()


def test_without_a_repetition_it_is_said_that_none_was_made(simulated: Simulated, held: Held) -> None:
    found = classify(*diverging(simulated, held))
    assert found.cannot_tell == ("Whether the observed run repeats itself: it was not run a second time.",)


def test_a_run_of_something_else_is_no_repetition(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    elsewhere = dataclasses.replace(golden, environment={"dtype": "bfloat16", "device": "x"})
    for repeated, what in (
        (with_model(weights=OTHER)(golden), "something else"),
        (elsewhere, "in another environment"),
    ):
        found = classify(golden, observed, repeated=repeated)
        assert found.divergence_class == "NEAR_TIE"
        assert found.cannot_tell == (
            f"Whether the observed run repeats itself: what was given as its repetition ran {what}.",
        )


def test_the_rules_on_the_way_keep_their_order(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    again = unlike(simulated, held)
    odd = with_evidence(non_finite=counts(s0=4))
    assert classify(golden, odd(observed), repeated=again).divergence_class == "NON_FINITE"
    heavier = with_model(weights=OTHER)
    assert classify(golden, heavier(odd(observed)), repeated=again).divergence_class == "WEIGHTS"


# Batches, suspects and the rest


def test_a_close_decision_in_one_row_does_not_hide_a_fault_in_another(simulated: Simulated, held: Held) -> None:
    near, drifting = (
        [record(simulated(seed_of(simulated, held, name, step), noise=noise)) for noise in (0.0, 0.1)]
        for name, step in (("NEAR_TIE", 3), ("DRIFT", 0))
    )
    broken = [record(simulated(3, rank=rank)) for rank in (lambda _, c: c, lambda step, c: c if step < 6 else -c - 9)]
    for rows, expected in (
        ((drifting, near), ("NEAR_TIE", 1)),
        ((near, drifting), ("NEAR_TIE", 0)),
        ((drifting, near, broken), ("LOGIC", 2)),
        ((broken, near), ("LOGIC", 0)),
    ):
        sides = [held(*(row[side] for row in rows), dtype="bfloat16") for side in (0, 1)]
        found = classify(*sides)
        assert (found.divergence_class, found.sequence) == expected


def test_what_cannot_be_told_precedes_what_noise_excuses(simulated: Simulated, held: Held) -> None:
    near = [record(simulated(seed_of(simulated, held, "NEAR_TIE", 3), noise=noise)) for noise in (0.0, 0.1)]
    bare = [SequenceRecord(one.trajectory, None, None) for one in near]
    sides = [held(near[side], bare[side], dtype="bfloat16") for side in (0, 1)]
    found = classify(*sides)
    assert (found.divergence_class, found.sequence) == (None, 1)


def test_the_earliest_fault_of_a_batch_is_reported(simulated: Simulated, held: Held) -> None:
    def broken(first: int) -> list[SequenceRecord]:
        return [record(simulated(3, rank=rank)) for rank in (lambda _, c: c, lambda s, c: c if s < first else -c - 9)]

    rows = (broken(5), broken(2))
    found = classify(*(held(*(row[side] for row in rows)) for side in (0, 1)))
    assert (found.divergence_class, found.sequence, found.step) == ("LOGIC", 1, 2)
    assert [(one.divergence_class, one.sequence, one.step) for one in found.others] == [("LOGIC", 0, 5)]


def test_suspects_name_what_else_differs(golden: Baseline) -> None:
    there = dataclasses.replace(golden, environment={"dtype": "float32", "torch": "2.13", "device": "cpu"})
    here = dataclasses.replace(golden, environment={"dtype": "float32", "torch": "2.12"})
    broken = with_model(weights=OTHER, name="n")
    assert classify(here, broken(there)).suspects == (
        Suspect("environment.torch", "2.12", "2.13"),
        Suspect("environment.device", None, "cpu"),
        Suspect("model.name", "m", "n"),
    )
    assert classify(here, there).suspects == ()
    nowhere = dataclasses.replace(here, environment={})
    assert [one.field for one in classify(nowhere, broken(there)).suspects] == ["model.name"]


def test_a_budget_is_given_or_the_goldens_or_a_default(simulated: Simulated, held: Held) -> None:
    golden, observed = diverging(simulated, held)
    own = Budget(0.6, 0.7, 0.8, {"runs": 3})
    found = classify(dataclasses.replace(golden, budget=own), observed)
    assert (found.tau, found.tau_source) == (0.7, "calibrated in the baseline")
    found = classify(dataclasses.replace(golden, budget=own), observed, budget=Budget(9, 9, 9, {}))
    assert (found.tau, found.tau_source) == (9, "given")
    found = classify(golden, dataclasses.replace(observed, budget=own))
    assert found.tau_source == "default for bfloat16"


def test_classify_is_offered_at_the_top_and_needs_no_torch() -> None:
    assert difftrace.classify is classify
    assert difftrace.Classification is Classification
    code = (
        "import sys; sys.modules['torch'] = None; import difftrace; difftrace.classify; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
