from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftrace.core.errors import FormatError
from difftrace.core.trajectory import Trajectory

Make = Callable[..., Trajectory]

VOCABULARY = 126464
MASK = 126336


def round_trip(trajectory: Trajectory) -> bytes:
    """Return the encoding after checking that it decodes to the same fields, all of them read-only."""
    data = trajectory.to_bytes()
    decoded = Trajectory.from_bytes(data)
    assert decoded == trajectory
    assert decoded.to_bytes() == data
    for name, value in vars(trajectory).items():
        other = getattr(decoded, name)
        assert type(other) is type(value), name
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype, name
            assert not other.flags.writeable, name
    return data


def commit_bound(trajectory: Trajectory, vocabulary: int = VOCABULARY) -> float:
    """Bits that one commit per position is worth: L log2 V + log2(L! / prod k_s!)."""
    events = trajectory.num_events
    orders = math.lgamma(events + 1) - sum(math.lgamma(k + 1) for k in np.bincount(trajectory.steps))
    return events * math.log2(vocabulary) + orders / math.log(2)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Any trajectory of a small canvas: positions that change 0 to n times, empty steps, every kind of prompt."""
    token = st.one_of(st.integers(0, 3), st.integers(0, 126463), st.integers(0, (1 << 31) - 1))
    length = draw(st.integers(1, 24))
    num_steps = draw(st.integers(0, 20))
    initial = draw(st.one_of(st.lists(token, min_size=length, max_size=length), token.map(lambda t: [t] * length)))
    padding = draw(st.integers(0, length))
    inside = draw(st.integers(0, length - padding))
    prompt = draw(st.one_of(st.just(initial[padding : padding + inside]), st.lists(token, max_size=30)))
    places = st.tuples(st.integers(0, max(0, num_steps - 1)), st.integers(0, length - 1))
    many = draw(st.sampled_from([0, 0, length, length * num_steps]))
    events = draw(st.dictionaries(places, token, max_size=many)) if num_steps else {}
    if num_steps and draw(st.booleans()):
        # Whole steps, which no list of drawn places is likely to hold.
        for step in draw(st.sets(st.integers(0, num_steps - 1), max_size=3)):
            events.update({(step, position): draw(token) for position in range(length)})
    mask = draw(
        st.one_of(
            st.none(),
            st.just([int(position >= padding) for position in range(length)]),
            st.lists(st.integers(0, 1), min_size=length, max_size=length),
        )
    )
    return Trajectory(
        prompt=prompt,
        initial=initial,
        steps=[step for step, _ in events],
        positions=[position for _, position in events],
        tokens=list(events.values()),
        num_steps=num_steps,
        padding=padding,
        attention_mask=mask,
    )


@given(trajectories())
def test_any_event_list_round_trips(trajectory: Trajectory) -> None:
    round_trip(trajectory)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1 << 32), st.sampled_from([2, 40, 126464]))
@settings(max_examples=60, deadline=None)
def test_long_event_lists_round_trip(length: int, num_steps: int, seed: int, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.choice([0.001, 0.01, 0.1, 0.5, 0.99, 1.0], num_steps)
    steps, positions = np.nonzero(rng.random((num_steps, length)) < share[:, None])
    round_trip(
        Trajectory(
            prompt=rng.integers(0, vocabulary, rng.integers(0, 50)),
            initial=rng.integers(0, vocabulary, length),
            steps=steps,
            positions=positions,
            tokens=rng.integers(0, vocabulary, steps.size),
            num_steps=num_steps,
        )
    )


def test_no_events_no_prompt_and_no_steps_round_trip() -> None:
    empty: list[int] = []
    data = round_trip(Trajectory(empty, [MASK] * 64, empty, empty, empty, 0))
    assert len(data) < 16
    round_trip(Trajectory(empty, [7], empty, empty, empty, 1 << 20))


def test_a_run_of_128_positions_in_64_steps_takes_at_most_450_bytes(random_trajectory: Make) -> None:
    assert max(len(round_trip(random_trajectory(seed=seed))) for seed in range(5)) <= 450


def test_a_prompt_adds_no_more_than_its_own_tokens(random_trajectory: Make) -> None:
    alone = len(random_trajectory().to_bytes())
    with_prompt = len(round_trip(random_trajectory(prompt=100, padding=28)))
    assert with_prompt - alone <= 100 * math.log2(VOCABULARY) / 8 * 1.01 + 16


@pytest.mark.parametrize(
    ("length", "steps"),
    [(512, 8), (512, 256), (512, 257), (512, 300), (512, 512), (1024, 512), (1024, 1024), (4096, 4096)],
)
def test_longer_runs_stay_within_ten_percent_of_what_they_are_worth(
    random_trajectory: Make, length: int, steps: int
) -> None:
    trajectory = random_trajectory(length, steps)
    assert len(round_trip(trajectory)) * 8 <= 1.10 * commit_bound(trajectory)


def test_a_canvas_that_is_rewritten_at_every_step_stays_within_15_percent(
    rewriting_trajectory: Trajectory,
) -> None:
    length = rewriting_trajectory.length
    bits = rewriting_trajectory.num_events * math.log2(262144)
    bits += sum(math.log2(math.comb(length, int(k))) for k in np.bincount(rewriting_trajectory.steps))
    assert len(round_trip(rewriting_trajectory)) * 8 <= 1.15 * bits


def test_steps_that_rewrite_the_whole_canvas_list_no_positions() -> None:
    rng = np.random.default_rng(0)
    length, steps, vocabulary = 256, 16, 1 << 16
    whole = Trajectory(
        prompt=[],
        initial=[0] * length,
        steps=np.repeat(np.arange(steps), length),
        positions=np.tile(np.arange(length), steps),
        tokens=rng.integers(0, vocabulary, length * steps),
        num_steps=steps,
    )
    assert len(round_trip(whole)) <= length * steps * 2 + 64


def test_a_few_repeated_commits_cost_a_few_bytes(random_trajectory: Make) -> None:
    once = random_trajectory()
    again = Trajectory(
        prompt=once.prompt,
        initial=once.initial,
        steps=[*once.steps, 64, 64, 65],
        positions=[*once.positions, 3, 77, 3],
        tokens=[*once.tokens, 1000, 2000, 3000],
        num_steps=66,
    )
    assert len(round_trip(again)) <= len(once.to_bytes()) + 32


def test_an_answer_with_a_long_tail_of_end_tokens_is_smaller(random_trajectory: Make) -> None:
    random = random_trajectory()
    tokens = random.tokens.copy()
    tokens[random.positions >= 64] = 126081
    tail = Trajectory([], random.initial, random.steps, random.positions, tokens, random.num_steps)
    assert len(round_trip(tail)) < len(random.to_bytes()) - 64 * 16 // 8


def test_text_that_repeats_itself_is_smaller(random_trajectory: Make) -> None:
    random = random_trajectory(512, 256)
    by_position = np.random.default_rng(0).integers(0, VOCABULARY, 16)[np.arange(512) % 16]
    repeated = Trajectory(
        [], random.initial, random.steps, random.positions, by_position[random.positions], random.num_steps
    )
    assert len(round_trip(repeated)) < len(random.to_bytes()) * 0.6


def test_few_different_tokens_are_smaller(random_trajectory: Make) -> None:
    random = random_trajectory(512, 256)
    rng = np.random.default_rng(0)
    tokens = rng.choice(rng.integers(0, VOCABULARY, 30), 512)
    few = Trajectory([], random.initial, random.steps, random.positions, tokens, random.num_steps)
    assert len(round_trip(few)) < len(random.to_bytes()) * 0.75


def test_padding_and_the_mask_that_hides_it_are_nearly_free(random_trajectory: Make) -> None:
    assert len(round_trip(random_trajectory(padding=100))) <= len(random_trajectory().to_bytes()) + 12


def test_positions_that_never_change_are_nearly_free() -> None:
    few = Trajectory([], [MASK] * 4096, [3], [17], [5], 8)
    assert len(round_trip(few)) < 40


def test_the_same_content_gives_the_same_bytes(random_trajectory: Make) -> None:
    assert random_trajectory().to_bytes() == random_trajectory().to_bytes()


def test_several_threads_encode_at_once(random_trajectory: Make) -> None:
    some = [random_trajectory(steps=16, prompt=seed, seed=seed) for seed in range(40)]
    alone = [trajectory.to_bytes() for trajectory in some]
    with ThreadPoolExecutor(max_workers=4) as pool:
        assert list(pool.map(Trajectory.to_bytes, some * 3)) == alone * 3


def test_a_prompt_outside_the_canvas_round_trips() -> None:
    round_trip(Trajectory([5, 6, 7], [MASK] * 2, [0, 1], [1, 0], [8, 9], 2))


def test_reading_needs_neither_zstandard_nor_jsonschema_nor_torch(random_trajectory: Make) -> None:
    data: Any = random_trajectory(prompt=5).to_bytes()
    code = (
        "import sys; from difftrace.core.trajectory import Trajectory;"
        f"Trajectory.from_bytes({data!r}).final;"
        "print(sorted({'zstandard', 'jsonschema', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_bytes_are_decoded() -> None:
    with pytest.raises(FormatError, match="is bytes, not str"):
        Trajectory.from_bytes("text")  # type: ignore[arg-type]
