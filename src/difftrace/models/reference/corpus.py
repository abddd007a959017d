"""The generated text the reference model is trained on: questions of four kinds and their answers.

Needs no licence: every line is made by the functions below from a seeded generator.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Raised whenever the same seed would give other text.
CORPUS_VERSION = 1

# One prompt in ten is never trained on; which ones is decided by the prompt's own hash.
_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Example:
    """A prompt and the answer that follows it."""

    prompt: str
    answer: str


def add(rng: np.random.Generator) -> Example:
    """`12 + 30 = ` is followed by `42`; both numbers below 100."""
    first, second = (int(number) for number in rng.integers(0, 100, 2))
    return Example(f"{first} + {second} = ", str(first + second))


def sort(rng: np.random.Generator) -> Example:
    """`sort 9 2 7 4: ` is followed by `2 4 7 9`; three to five digits."""
    digits = [str(digit) for digit in rng.integers(0, 10, int(rng.integers(3, 6)))]
    return Example(f"sort {' '.join(digits)}: ", " ".join(sorted(digits)))


def reverse(rng: np.random.Generator) -> Example:
    """`reverse stone: ` is followed by `enots`; three to seven letters, seldom a word."""
    letters = "".join(rng.choice(list(string.ascii_lowercase), int(rng.integers(3, 8))))
    return Example(f"reverse {letters}: ", letters[::-1])


def next_day(rng: np.random.Generator) -> Example:
    """`day after 2024-04-30: ` is followed by `2024-05-01`; half of the days end a month or come near it."""
    year, month = int(rng.integers(2000, 2100)), int(rng.integers(1, 13))
    last = calendar.monthrange(year, month)[1]
    day = int(rng.integers(27, last + 1)) if rng.random() < 0.5 else int(rng.integers(1, last + 1))
    date = datetime.date(year, month, day)
    return Example(f"day after {date}: ", str(date + datetime.timedelta(days=1)))


KINDS: dict[str, Callable[[np.random.Generator], Example]] = {
    "add": add,
    "sort": sort,
    "reverse": reverse,
    "next_day": next_day,
}
# How often each kind is trained on: the harder, the more often.
SHARES = {"add": 0.34, "sort": 0.12, "reverse": 0.14, "next_day": 0.4}


def is_held_out(prompt: str) -> bool:
    """Whether the model has never seen this prompt in training."""
    return hashlib.sha256(prompt.encode()).digest()[0] < 256 * _HELD_OUT_SHARE


def training_example(rng: np.random.Generator) -> Example:
    """Draw an example that is not held out, of a kind drawn by its share."""
    kind = KINDS[str(rng.choice(list(SHARES), p=list(SHARES.values())))]
    return _draw(kind, rng, held_out=False)


def held_out_examples(kind: str, count: int, seed: int = 0) -> list[Example]:
    """Return `count` different examples of `kind` that no training run sees."""
    rng = np.random.default_rng([seed, *kind.encode()])
    found: dict[str, Example] = {}
    while len(found) < count:
        example = _draw(KINDS[kind], rng, held_out=True)
        found[example.prompt] = example
    return list(found.values())


def _draw(kind: Callable[[np.random.Generator], Example], rng: np.random.Generator, *, held_out: bool) -> Example:
    while is_held_out((example := kind(rng)).prompt) != held_out:
        pass
    return example
