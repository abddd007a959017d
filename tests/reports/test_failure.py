"""The failure text shows where two runs part, within forty lines and a hundred columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from difftrace.core.comparison import compare_sequences
from difftrace.core.recording import Baseline, ModelIdentity, SamplerIdentity
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.reports.columns import width
from difftrace.reports.failure import divergence_text

MODEL = ModelIdentity("m", None, "sha256:" + "a" * 64, None, None, 1000, 999)


def told(golden: Baseline, observed: Baseline, **more: Any) -> list[str]:
    divergence = compare_sequences(*([r.trajectory for r in b.sequences] for b in (golden, observed)))
    where, advice = ["  at test_x.py:7"], ["Record it:", "  pytest --difftrace-record test_x.py"]
    return divergence_text(
        golden, observed, divergence, subject="run differs", where=where, advice=advice, **more
    ).split("\n")


def under_caret(lines: list[str], row: str) -> str:
    """Return what stands above the first caret line in the row that starts with `row`, by terminal columns."""
    end = next(index for index, line in enumerate(lines) if set(line) == {" ", "^"})
    start = lines[end].index("^")
    [line] = [line for line in lines[max(0, end - 4) : end] if line.startswith(row)]
    columns = [character for character in line for _ in range(width(character))]
    return "".join(columns[start : len(lines[end])])


def test_names_step_position_tokens_and_agreement(recorded):
    lines = told(recorded([5, 6, 7, 8]), recorded([5, 6, 70, 8]))
    assert lines[0] == "difftrace: run differs at step 2, position 4"
    assert lines[1] == "  at test_x.py:7"
    assert "2 of 4 steps agreed before it (2 decisions)" in lines
    assert "  golden    commits token 7" in lines
    assert "  observed  commits token 70" in lines
    assert lines[-1] == "  pytest --difftrace-record test_x.py"


def test_shows_decoded_tokens_where_there_are_pieces(recorded):
    lines = told(recorded([5, 6], pieces={5: " cat"}), recorded([7, 6], pieces={7: " dog"}))
    assert "  golden    commits token 5  '␣cat'" in lines
    assert "  observed  commits token 7  '␣dog'" in lines


def test_canvas_shows_masks_and_both_commits_above_the_caret(recorded):
    lines = told(recorded([5, 6, 7, 8]), recorded([5, 6, 70, 8]))
    assert under_caret(lines, "position").strip() == "4"
    assert under_caret(lines, "canvas").strip() == "░"
    assert under_caret(lines, "golden").strip() == "7"
    assert under_caret(lines, "observed").strip() == "70"
    assert "canvas    1  2  5  6  ░   ░" in lines


def test_mask_is_the_models_where_it_names_one(recorded):
    model = replace(MODEL, mask_token_id=1)
    lines = told(recorded([5, 6], model=model), recorded([5, 7], model=model))
    assert "canvas    ░  2  5  999" in lines


def test_wide_and_combining_characters_do_not_move_the_caret(recorded):
    pieces = {5: "語語語", 6: "e\u0301", 7: "金", 70: "銀"}
    lines = told(recorded([5, 6, 7], pieces=pieces), recorded([5, 6, 70], pieces=pieces))
    assert under_caret(lines, "golden").startswith("金")
    assert under_caret(lines, "observed").startswith("銀")


def test_texts_are_shown_around_their_first_difference(recorded):
    golden = recorded([5], text="x" * 500 + "語 is right" + "y" * 500)
    observed = recorded([6], text="x" * 500 + "語 is wrong" + "y" * 500)
    lines = told(golden, observed)
    texts = [line for line in lines if "語 is" in line]
    assert [line.split('"')[0].strip() for line in texts] == ["golden", "observed"]
    caret = lines[lines.index(texts[1]) + 1]
    before = texts[0][: texts[0].index("right")]
    assert caret.index("^") == width(before)


def test_equal_texts_are_shown_once(recorded):
    lines = told(recorded([5], text="same"), recorded([6], text="same"))
    assert 'final text, equal in both: "same"' in lines


def test_without_texts_the_final_canvases_are_shown(recorded):
    lines = told(recorded([5, 6]), recorded([5, 7]))
    assert "final canvas:" in lines
    assert "observed  1  2  5  7" in lines


def test_control_bidi_and_runner_commands_never_reach_the_terminal(recorded):
    bad = "\x1b[31m\u202e::error::\r\n##[error]\u2028"
    golden = recorded([5], text=f"{bad}a", pieces={5: bad}, environment={bad: bad})
    observed = recorded([6], text=f"{bad}b", pieces={6: f"{bad}2"}, environment={bad: "other"})
    lines = told(golden, observed)
    assert all(line.isprintable() for line in lines)
    assert not any(line.lstrip().startswith("::") or "##[" in line for line in lines)


def test_says_what_else_differs_and_stops_after_a_few_lines(recorded):
    golden = recorded([5], environment={f"key{i}": "1" for i in range(20)}, model=MODEL)
    observed = recorded(
        [6], environment={f"key{i}": "2" for i in range(20)}, model=replace(MODEL, weights="sha256:" + "b" * 64)
    )
    lines = told(golden, observed)
    start = lines.index("what else differs (golden → observed):")
    assert lines[start + 1].startswith("  model.weights: sha256:aaa")
    assert lines[start + 7] == "  and 15 more"


def test_sampler_arguments_that_differ_are_named(recorded):
    golden = replace(recorded([5]), sampler=SamplerIdentity("llada", 1, {"steps": 4, "seed": 0}))
    observed = replace(recorded([6]), sampler=SamplerIdentity("llada", 1, {"steps": 8, "seed": 0}))
    assert "  sampler.steps: 4 → 8" in told(golden, observed)


def test_a_side_that_does_not_say_what_ran_is_no_difference(recorded):
    lines = told(recorded([5], model=MODEL, environment={"torch": "2"}), recorded([6]))
    assert not any("what else differs" in line for line in lines)


def test_labels_replace_golden_and_observed(recorded):
    lines = told(recorded([5]), recorded([6]), labels=("run 1", "run 2"))
    assert "  run 1  commits token 5" in lines
    assert not any("golden" in line for line in lines)


def test_a_position_only_one_run_commits_is_said_so(recorded):
    one = Trajectory(prompt=[], initial=[9, 9], steps=[0, 1], positions=[0, 1], tokens=[1, 2], num_steps=2)
    other = Trajectory(prompt=[], initial=[9, 9], steps=[0, 1], positions=[1, 0], tokens=[2, 1], num_steps=2)
    lines = told(Run((one,)).to_baseline(None), Run((other,)).to_baseline(None))
    assert "  observed  commits nothing there at this step" in lines


def test_another_prompt_is_shown_where_it_differs(recorded):
    lines = told(recorded([5], prompt=[1, 2, 3]), recorded([5], prompt=[1, 7, 3]))
    assert lines[0] == "difftrace: run differs in the prompt at position 1, before any step"
    assert under_caret(lines, "observed").strip() == "7"


def test_a_longer_prompt_is_no_index_error(recorded):
    lines = told(recorded([5], prompt=[1, 2, 3]), recorded([5, 6], prompt=[1, 2]))
    assert "  observed  has no such position" in lines


def test_another_number_of_steps_is_told(recorded):
    one = recorded([5, 6]).sequences[0].trajectory
    columns = vars(one) | {"num_steps": 4}
    longer = Trajectory(**{name: columns[name] for name in Trajectory.__dataclass_fields__})
    lines = told(recorded([5, 6]), Run((longer,)).to_baseline(None))
    assert "golden has 2 steps, observed has 4; the 2 steps that both have are equal" in lines


def test_another_batch_size_is_told(recorded):
    run = recorded([5]).sequences[0].trajectory
    lines = told(Run((run,)).to_baseline(None), Run((run, run)).to_baseline(None))
    assert lines[0] == "difftrace: run differs: 1 and 2 sequences"


def test_the_sequence_of_a_batch_is_named(recorded):
    one, other = (recorded(tokens).sequences[0].trajectory for tokens in ([5], [6]))
    lines = told(Run((one, one)).to_baseline(None), Run((one, other)).to_baseline(None))
    assert lines[0].endswith("at step 0, position 2 of sequence 1 (of 0..1)")


def test_reasons_stand_between_the_place_and_the_decision(recorded):
    lines = told(recorded([5]), recorded([6]), reasons=["NEAR_TIE: because.", "  budget: none"])
    assert lines[1:6] == ["  at test_x.py:7", "", "NEAR_TIE: because.", "  budget: none", ""]


def test_more_than_eight_reasons_are_cut(recorded):
    lines = told(recorded([5]), recorded([6]), reasons=[f"reason {index}" for index in range(20)])
    assert lines[3:11] == [*(f"reason {index}" for index in range(7)), "  and 13 more lines"]
    assert "reason 7" not in lines


def test_equal_decisions_are_said_to_be_equal(recorded):
    assert told(recorded([5]), recorded([5]))[0] == "difftrace: run differs, though no decision does"
    other = told(recorded([5], text="a"), recorded([5], text="b"))
    assert other[0] == "difftrace: run differs: its final text is another"


def test_the_size_of_the_batch_gives_way_to_a_long_subject(recorded):
    one, other = (recorded(tokens).sequences[0].trajectory for tokens in ([5] * 1500, [*[5] * 1499, 6]))
    golden, observed = (Run((one,) * 99 + (last,)).to_baseline(None) for last in (one, other))
    divergence = compare_sequences(*([r.trajectory for r in b.sequences] for b in (golden, observed)))
    subject = "NON_FINITE: final tokens differ from the baseline's; the runs part"
    [line, *_] = divergence_text(golden, observed, divergence, subject=subject, where=[], advice=[]).split("\n")
    assert line == f"difftrace: {subject} at step 1499, position 1501 of sequence 99"


@pytest.mark.parametrize("piece", ["word", "語" * 40, "e\u0301" * 300, "\x1b" * 200, None])
@pytest.mark.parametrize("at", [0, 1999, 3999])
def test_never_more_than_forty_lines_or_a_hundred_columns(recorded, piece: str | None, at: int):
    tokens = [index % 900 for index in range(4000)]
    other = [*tokens]
    other[at] = 901
    pieces = {} if piece is None else {index: f"{piece}{index}" for index in range(902)}
    environments = ({f"{'k' * 90}{i}": side * 300 for i in range(30)} for side in "ab")
    texts = (None, None) if piece is None else (piece * 4000 + "a", piece * 4000 + "b" * 4000)
    golden, observed = (
        recorded(ids, text=text, pieces=pieces, model=MODEL, environment=environment)
        for ids, text, environment in zip((tokens, other), texts, environments, strict=True)
    )
    lines = told(golden, observed)
    assert len(lines) <= 40
    assert max(map(width, lines)) <= 100
    with_all = divergence_text(
        golden,
        observed,
        compare_sequences(*([r.trajectory for r in b.sequences] for b in (golden, observed))),
        subject="run differs",
        where=["  where"] * 4,
        reasons=["reason"] * 30,
        advice=["advice"] * 4,
    ).split("\n")
    assert len(with_all) <= 40
    assert any(line.startswith(("  environment.", "  and ")) for line in with_all)
    assert with_all[-4:] == ["advice"] * 4
