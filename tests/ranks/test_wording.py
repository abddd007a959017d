"""What ranks say to each other and to the reader, with no process but this one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the package of ranks needs torch")

from difftrace.core.errors import FormatError  # noqa: E402
from difftrace.core.trajectory import Trajectory  # noqa: E402
from difftrace.ranks.batch import pack, unpack  # noqa: E402
from difftrace.ranks.message import SIZE, Kind, Message, label_digest  # noqa: E402
from difftrace.ranks.wording import disagreement, named, out_of_step  # noqa: E402


def trajectory(*tokens: int, steps: int | None = None, prompt: int = 1) -> Trajectory:
    count = len(tokens)
    return Trajectory(
        prompt=[prompt],
        initial=[prompt, *[99] * count],
        steps=range(count),
        positions=range(1, 1 + count),
        tokens=tokens,
        num_steps=count if steps is None else steps,
    )


@pytest.mark.parametrize(
    "message",
    [
        Message(Kind.RUN, 3, digest=bytes(range(32))),
        Message(Kind.RAISED, 2**32 - 1, text="ValueError: 五"),
        Message(Kind.CHECK, label=label_digest("a"), text="a"),
        Message(Kind.ASK, yes=True),
    ],
)
def test_a_message_has_one_size_and_comes_back_as_it_was(message: Message) -> None:
    assert len(message.pack()) == SIZE
    assert Message.unpack(message.pack()) == message


def test_a_long_text_is_cut_even_within_a_character() -> None:
    unpacked = Message.unpack(Message(Kind.RAISED, text="x" + "五" * 300).pack())
    assert unpacked is not None
    assert unpacked.text.startswith("x五五")
    assert set(unpacked.text) == {"x", "五"}


@pytest.mark.parametrize("data", [b"", bytes(SIZE), b"DTR1" + bytes(SIZE - 4), b"DTR2\xff" + bytes(SIZE - 5)])
def test_bytes_of_another_version_are_no_message(data: bytes) -> None:
    assert Message.unpack(data) is None


def test_a_batch_comes_back_as_it_was() -> None:
    batch = [trajectory(1, 2, 3), trajectory(), trajectory(7, steps=9)]
    assert unpack(pack(batch)) == batch
    assert unpack(b"") == []


@pytest.mark.parametrize("cut", [1, 7, 9])
def test_a_batch_that_ends_too_early_is_refused(cut: int) -> None:
    with pytest.raises(FormatError):
        unpack(pack([trajectory(1, 2, 3)])[:-cut])
    with pytest.raises(FormatError):
        unpack(b"\xff" * 8)


def test_ranks_are_named_as_spans() -> None:
    assert named([3]) == "rank 3"
    assert named([0, 1]) == "ranks 0, 1"
    assert named([0, 2, 3, 4, 9]) == "ranks 0, 2-4, 9"


def test_every_group_of_ranks_is_told_where_it_parts_from_rank_0() -> None:
    golden = [trajectory(1, 2, 3), trajectory(4, 5)]
    text = disagreement(
        {
            0: ([0, 2], golden),
            1: ([1], [golden[0], trajectory(4, 6)]),
            3: ([3, 4], [golden[0], trajectory(4, 5, steps=8)]),
            5: ([5], golden[:1]),
            6: ([6], [trajectory(1, 2, 3, prompt=8), golden[1]]),
        }
    )
    one, *lines = text.splitlines()
    assert one == "ranks disagree"
    tokens = "token 1 on rank 0, token 8 on rank 6"
    assert lines == [
        "  rank 1 parts from rank 0 at step 1, sequence 1, position 2: token 5 on rank 0, token 6 on rank 1",
        "  ranks 3, 4 part from rank 0 at step 2, sequence 1, where one of the two ends",
        "  rank 5 parts from rank 0 in the number of sequences: 2 and 1",
        f"  rank 6 parts from rank 0 in the prompt, sequence 0, position 0, before any step: {tokens}",
        "  rank 2 decides as rank 0",
    ]


def test_many_groups_are_cut_to_a_few_lines() -> None:
    groups = {rank: ([rank], [trajectory(rank)]) for rank in range(64)}
    lines = disagreement(groups).splitlines()
    assert len(lines) == 9
    assert lines[-1] == "  and 56 more groups of ranks"


def test_ranks_that_run_another_version_or_ended_are_named() -> None:
    run = Message(Kind.RUN, 1)
    assert out_of_step([run, None, Message(Kind.LEFT), run]).splitlines() == [
        "ranks are out of step",
        "  ranks 0, 3: at the end of run 1",
        "  rank 1: runs another version of pytest-difftrace",
        "  rank 2: ended",
        "  Every rank has to make the same runs and checks in the same order.",
    ]


def test_a_rank_that_failed_at_another_request_is_out_of_step() -> None:
    failed = Message(Kind.FAILED, label=label_digest("a"), text="a: ValueError: no")
    assert out_of_step([failed, Message(Kind.CHECK, label=label_digest("a"), text="a")]).splitlines() == [
        "not every rank has this",
        "  rank 0: failed at a: ValueError: no",
        "  rank 1: at a",
    ]
    assert out_of_step([failed, Message(Kind.CHECK, label=label_digest("b"), text="b")]).splitlines() == [
        "ranks are out of step",
        "  rank 0: failed at a: ValueError: no",
        "  rank 1: at b",
        "  Every rank has to make the same runs and checks in the same order.",
    ]
