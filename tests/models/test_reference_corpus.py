"""The generated text of the reference model: right answers, and prompts that training never sees."""

import datetime

import numpy as np
import pytest

from difftrace.models.reference.corpus import (
    KINDS,
    Example,
    held_out_examples,
    is_held_out,
    training_example,
)


def answer(prompt: str) -> str:
    """Work the answer out anew, from the prompt alone."""
    kind, _, rest = prompt.rstrip(": ").partition(" ")
    if kind == "sort":
        return " ".join(sorted(rest.split()))
    if kind == "reverse":
        return "".join(reversed(rest))
    if kind == "day":
        date = datetime.date.fromisoformat(rest.removeprefix("after "))
        return (date + datetime.timedelta(days=1)).isoformat()
    first, _, second, _ = prompt.split()
    return str(int(first) + int(second))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_right(kind):
    for example in held_out_examples(kind, 200):
        assert example == Example(example.prompt, answer(example.prompt))


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_prompts_differ_from_each_other_and_do_not_change(kind):
    examples = held_out_examples(kind, 100)
    assert len({example.prompt for example in examples}) == 100
    assert examples == held_out_examples(kind, 100)
    assert all(is_held_out(example.prompt) for example in examples)


def test_training_never_draws_a_held_out_prompt():
    rng = np.random.default_rng(0)
    prompts = [training_example(rng).prompt for _ in range(5000)]
    assert not any(is_held_out(prompt) for prompt in prompts)


def test_the_same_seed_gives_the_same_text():
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    assert [training_example(first) for _ in range(50)] == [training_example(second) for _ in range(50)]


def test_every_kind_is_trained_on():
    rng = np.random.default_rng(1)
    prompts = [training_example(rng).prompt for _ in range(300)]
    for start in ("sort", "reverse", "day after"):
        assert any(prompt.startswith(start) for prompt in prompts)
    assert any("+" in prompt for prompt in prompts)
