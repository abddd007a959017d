"""Why ranks are not at one, in words that are the same on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from difftrace.core.comparison import Divergence, compare_sequences
from difftrace.core.text import printable
from difftrace.core.trajectory import Trajectory
from difftrace.ranks.message import Kind, Message

_MOST_LINES = 8


def named(ranks: Sequence[int]) -> str:
    """Return "rank 3", or "ranks 0, 2-5, 7" of ascending numbers."""
    spans = []
    for _, group in groupby(enumerate(ranks), key=lambda one: one[1] - one[0]):
        numbers = [rank for _, rank in group]
        if len(numbers) > 2:
            spans.append(f"{numbers[0]}-{numbers[-1]}")
        else:
            spans += map(str, numbers)
    return f"rank{'' if len(ranks) == 1 else 's'} {', '.join(spans)}"


def out_of_step(messages: Sequence[Message | None]) -> str:
    """Return why ranks that said `messages` cannot be compared; None is one that could not be read."""
    # Labels may be told apart by no more than what was cut off.
    found: dict[tuple[str, bytes | None], list[int]] = {}
    for rank, message in enumerate(messages):
        found.setdefault((_where(message), message.label if message else None), []).append(rank)
    lines = _cut([f"{named(ranks)}: {what}" for (what, _), ranks in found.items()])
    kinds = {message.kind for message in messages if message is not None}
    if Kind.RAISED in kinds:
        return "\n  ".join(["not every rank finished this run", *lines])
    if Kind.FAILED in kinds and len({message.label for message in messages if message is not None}) == 1:
        return "\n  ".join(["not every rank has this", *lines])
    end = "Every rank has to make the same runs and checks in the same order."
    return "\n  ".join(["ranks are out of step", *lines, end])


def _where(message: Message | None) -> str:
    if message is None:
        return "runs another version of pytest-difftrace"
    made = f"{message.runs} run{'' if message.runs == 1 else 's'}"
    if message.kind == Kind.RUN:
        return f"at the end of run {message.runs}"
    if message.kind == Kind.RAISED:
        return f"run {message.runs} raised {printable(message.text)}"
    if message.kind == Kind.FAILED:
        return f"failed at {printable(message.text)}"
    if message.kind == Kind.CHECK and message.text:
        return f"at {printable(message.text)}"
    if message.kind in (Kind.CHECK, Kind.ASK):
        return f"{'at' if message.kind == Kind.CHECK else 'within'} a check after {made}"
    return f"done after {made}" if message.kind == Kind.REST else "ended"


def disagreement(groups: Mapping[int, tuple[Sequence[int], Sequence[Trajectory]]]) -> str:
    """Return where ranks part from rank 0.

    `groups` has, by lowest rank, the ranks that decide alike and their trajectories; rank 0 is the first.
    """
    (alike, golden), *others = (groups[first] for first in sorted(groups))
    lines = []
    for ranks, observed in others:
        divergence = compare_sequences(golden, observed)
        part = "parts" if len(ranks) == 1 else "part"
        lines.append(f"{named(ranks)} {part} from rank 0 {_place(divergence, len(golden), len(observed), ranks[0])}")
    if len(alike) > 1:
        lines.append(f"{named(alike[1:])} decide{'s' if len(alike) == 2 else ''} as rank 0")
    return "\n  ".join(["ranks disagree", *_cut(lines)])


def _place(divergence: Divergence | None, ours: int, theirs: int, other: int) -> str:
    if divergence is None:  # equal after all: the digests were not of these
        return "by digest alone"
    if divergence.kind == "sequences":
        return f"in the number of sequences: {ours} and {theirs}"
    of = "" if ours == 1 else f", sequence {divergence.sequence}"
    if divergence.kind == "length":
        return f"at step {divergence.step}{of}, where one of the two ends"
    at = "" if divergence.position is None else f", position {divergence.position}"
    tokens = "" if divergence.position is None else f": {_token(divergence, other)}"
    if divergence.kind == "decision":
        return f"at step {divergence.step}{of}{at}{tokens}"
    return f"in the {'prompt' if divergence.kind == 'prompt' else 'first canvas'}{of}{at}, before any step{tokens}"


def _token(divergence: Divergence, other: int) -> str:
    sides = (("rank 0", divergence.golden), (f"rank {other}", divergence.observed))
    return ", ".join(f"{'none' if token is None else f'token {token}'} on {rank}" for rank, token in sides)


def _cut(lines: Sequence[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return list(lines)
    return [*lines[: _MOST_LINES - 1], f"and {len(lines) - _MOST_LINES + 1} more groups of ranks"]
