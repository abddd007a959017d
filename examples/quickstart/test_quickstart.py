"""Golden tests of the embedded reference model: one prompt of each kind it knows, and a batch."""

import pytest


def test_sum(llada, difftrace):
    run = llada.generate("12 + 30 = ", gen_length=16, steps=16, block_length=8)
    difftrace.check(run)
    assert run.text.startswith("42")


@pytest.mark.parametrize("word", ["stone", "lamp"])
def test_reverse(llada, difftrace, word):
    run = llada.generate(f"reverse {word}: ", gen_length=16, steps=8, block_length=16)
    difftrace.check(run)
    assert run.text == word[::-1]


def test_batch_with_padding(llada, difftrace):
    run = llada.generate(["7 + 5 = ", "sort 9 2 7 4: "], gen_length=16, steps=16, block_length=8)
    difftrace.check(run)
    assert run.texts == ("12", "2 4 7 9")
