"""The counter-based generator against its authors' known answers, and against the definition in Python integers."""

from __future__ import annotations

import random

import pytest
import torch

from difftrace.sampling.philox import WORD, odd_of, philox


def _tensors(words: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words)
    return c0, c1, c2, c3


def _reference(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


# Random123, tests/kat_vectors, the lines "philox4x32 10".
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((WORD,) * 4, (WORD, WORD), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_it_gives_the_published_answers(counter: tuple[int, ...], key: tuple[int, int], answer: str) -> None:
    assert " ".join(f"{int(word):08x}" for word in philox(_tensors(counter), key)) == answer


def test_every_element_is_computed_as_integers_without_bounds_are() -> None:
    # Vectorised and scalar paths, as a long tensor has both; words with high bits set, whose products wrap around.
    draw = random.Random(0)
    counters = [[draw.getrandbits(32) | (i % 2) << 31 for i in range(1003)] for _ in range(4)]
    key = (0xFFFFFFFE, 0x80000001)
    c0, c1, c2, c3 = (torch.tensor(words) for words in counters)
    words = torch.stack(philox((c0, c1, c2, c3), key), dim=1)
    assert [tuple(row) for row in words.tolist()] == [_reference(one, key) for one in zip(*counters, strict=True)]


def test_counters_broadcast_and_may_be_plain_integers_where_they_are_only_combined() -> None:
    columns, rows = torch.arange(5), torch.arange(3)[:, None]
    words = philox((columns, 7, rows, WORD), (1, 2))
    for row in range(3):
        for column in range(5):
            assert tuple(int(word[row, column]) for word in words) == _reference((column, 7, row, WORD), (1, 2))


def test_extreme_words_give_numbers_inside_the_open_interval() -> None:
    words = torch.tensor([0, 0, WORD, WORD]), torch.tensor([0, 0xFFF, 0xFFFFF000, WORD])
    odd = odd_of(*words)
    assert odd.tolist() == [1, 1, 2**53 - 1, 2**53 - 1]
    uniform = odd.double() * 2.0**-53
    assert uniform.tolist() == [2.0**-53, 2.0**-53, 1 - 2.0**-53, 1 - 2.0**-53]
    assert (-torch.log(uniform) > 0).all()
    assert torch.isfinite(-torch.log(uniform)).all()
