from __future__ import annotations

import numpy as np

from difftrace.core.comparison import Divergence, compare, compare_sequences, compare_step
from difftrace.core.trajectory import Trajectory


def run(*events: tuple[int, int, int], num_steps: int = 4, **fields: object) -> Trajectory:
    columns = np.array(events, dtype=np.int64).reshape(-1, 3).T
    defaults: dict[str, object] = {"prompt": [1, 2], "initial": [1, 2, 9, 9, 9, 9]}
    return Trajectory(
        **{**defaults, **fields},  # type: ignore[arg-type]
        steps=columns[0],
        positions=columns[1],
        tokens=columns[2],
        num_steps=num_steps,
    )


GOLDEN = run((0, 2, 20), (0, 3, 30), (1, 4, 40), (3, 5, 50))


def test_equal_runs_do_not_diverge() -> None:
    assert compare(GOLDEN, run((0, 2, 20), (0, 3, 30), (1, 4, 40), (3, 5, 50))) is None
    assert compare_sequences([GOLDEN, GOLDEN], [GOLDEN, GOLDEN]) is None


def test_another_token_is_shown_with_both() -> None:
    observed = run((0, 2, 20), (0, 3, 31), (1, 4, 41), (3, 5, 50))
    assert compare(GOLDEN, observed) == Divergence("decision", 0, 0, 3, 30, 31, 0, 1)


def test_a_commit_only_the_golden_made() -> None:
    observed = run((0, 2, 20), (0, 3, 30), (2, 4, 40), (3, 5, 50))
    assert compare(GOLDEN, observed) == Divergence("decision", 0, 1, 4, 40, None, 1, 2)


def test_a_commit_only_the_observed_made() -> None:
    observed = run((0, 2, 20), (0, 3, 30), (1, 3, 31), (1, 4, 40), (3, 5, 50))
    assert compare(GOLDEN, observed) == Divergence("decision", 0, 1, 3, None, 31, 1, 2)


def test_other_positions_within_a_step_part_at_the_lower_one() -> None:
    observed = run((0, 2, 20), (0, 5, 30), (1, 4, 40), (3, 3, 50))
    assert compare(GOLDEN, observed) == Divergence("decision", 0, 0, 3, 30, None, 0, 1)


def test_missing_commits_at_the_end() -> None:
    observed = run((0, 2, 20), (0, 3, 30), (1, 4, 40))
    assert compare(GOLDEN, observed) == Divergence("decision", 0, 3, 5, 50, None, 3, 3)
    assert compare(observed, GOLDEN) == Divergence("decision", 0, 3, 5, None, 50, 3, 3)


def test_only_the_number_of_steps_differs() -> None:
    observed = run((0, 2, 20), (0, 3, 30), (1, 4, 40), (3, 5, 50), num_steps=6)
    assert compare(GOLDEN, observed) == Divergence("length", 0, 4, None, None, None, 4, 4)


def test_commits_of_steps_the_other_lacks_are_a_length() -> None:
    observed = run((0, 2, 20), (0, 3, 30), (1, 4, 40), num_steps=3)
    assert compare(GOLDEN, observed) == Divergence("length", 0, 3, None, None, None, 3, 3)


def test_a_decision_precedes_a_length() -> None:
    observed = run((0, 2, 20), (0, 3, 30), (1, 4, 41), num_steps=3)
    divergence = compare(GOLDEN, observed)
    assert divergence is not None
    assert (divergence.kind, divergence.step) == ("decision", 1)


def test_a_changed_prompt_token() -> None:
    observed = run(prompt=[1, 3], initial=[1, 3, 9, 9, 9, 9])
    assert compare(GOLDEN, observed) == Divergence("prompt", 0, None, 1, 2, 3, 0, 0)


def test_a_longer_prompt() -> None:
    observed = run(prompt=[1, 2, 3])
    assert compare(GOLDEN, observed) == Divergence("prompt", 0, None, 2, None, 3, 0, 0)


def test_padding_and_attention_mask_belong_to_the_prompt() -> None:
    nowhere = Divergence("prompt", 0, None, None, None, None, 0, 0)
    padded = run(padding=1)
    masked = run(attention_mask=[0, 1, 1, 1, 1, 1])
    assert compare(run(), padded) == nowhere
    assert compare(run(), masked) == nowhere
    assert compare(masked, run()) == nowhere
    assert compare(masked, run(attention_mask=[0, 0, 1, 1, 1, 1])) == nowhere
    assert compare(masked, run(attention_mask=[0, 1, 1, 1, 1, 1])) is None


def test_another_first_canvas() -> None:
    assert compare(GOLDEN, run(initial=[1, 2, 9, 8, 9, 9])) == Divergence("initial", 0, None, 3, 9, 8, 0, 0)
    assert compare(GOLDEN, run(initial=[1, 2, 9, 9])) == Divergence("initial", 0, None, 4, 9, None, 0, 0)


def test_the_earliest_step_of_a_batch_wins_then_the_lowest_sequence() -> None:
    late = run((0, 2, 20), (0, 3, 30), (1, 4, 40), (3, 5, 51))
    early = run((0, 2, 20), (0, 3, 31), (1, 4, 40), (3, 5, 50))
    divergence = compare_sequences([GOLDEN] * 4, [GOLDEN, late, early, early])
    assert divergence is not None
    assert (divergence.sequence, divergence.step, divergence.position) == (2, 0, 3)


def test_a_difference_before_any_step_precedes_step_zero() -> None:
    early = run((0, 2, 21))
    divergence = compare_sequences([GOLDEN] * 2, [early, run(prompt=[1])])
    assert divergence is not None
    assert (divergence.kind, divergence.sequence) == ("prompt", 1)


def test_another_number_of_sequences() -> None:
    assert compare_sequences([GOLDEN], [GOLDEN, GOLDEN]) == Divergence("sequences", 1, None, None, None, None, 0, 0)


def test_numbers_are_plain_integers() -> None:
    divergence = compare(GOLDEN, run((0, 2, 20), (0, 3, 31)))
    assert divergence is not None
    assert {type(value) for value in (divergence.step, divergence.position, divergence.golden)} == {int}


def test_a_step_compares_as_the_run_that_it_ends() -> None:
    golden = [(0, 2, 20), (0, 3, 30), (1, 4, 40), (3, 5, 50)]
    steps = [[], [(4, 40)], [(4, 41)], [(5, 40)], [(2, 20)], [(4, 40), (5, 50)], [(3, 7), (4, 40)]]
    for events in steps:
        whole = run(*golden[:2], *((1, position, token) for position, token in events), num_steps=2)
        expected = compare(run(*golden[:3], num_steps=2), whole)
        backwards = np.array(events[::-1], dtype=np.int32).reshape(-1, 2).T
        assert compare_step(GOLDEN, 1, *backwards, sequence=0) == expected


def test_a_step_that_commits_nothing_compares_with_one_that_commits() -> None:
    nothing = np.zeros(0, dtype=np.int32)
    assert compare_step(GOLDEN, 2, nothing, nothing, 0) is None
    assert compare_step(GOLDEN, 2, np.array([5]), np.array([8]), 3) == Divergence("decision", 3, 2, 5, None, 8, 2, 3)
    assert compare_step(GOLDEN, 3, nothing, nothing, 0) == Divergence("decision", 0, 3, 5, 50, None, 3, 3)
