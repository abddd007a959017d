"""Ranks that go through the same runs, and compare what they decided at the end of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import methodcaller
from typing import Final
from weakref import WeakKeyDictionary

import torch.distributed as dist

from difftrace.core.errors import RankError
from difftrace.core.run import Run
from difftrace.core.text import printable
from difftrace.core.trajectory import Trajectory
from difftrace.ranks.batch import pack, unpack
from difftrace.ranks.channel import Channel
from difftrace.ranks.message import NO_DIGEST, Kind, Message, label_digest
from difftrace.ranks.wording import disagreement, out_of_step

# Test runners then show the caller's line, not ours.
__tracebackhide__ = methodcaller("errisinstance", RankError)

_ranks: Final[WeakKeyDictionary[dist.ProcessGroup, Ranks]] = WeakKeyDictionary()


def current() -> Ranks | None:
    """Return the ranks of torch.distributed's default group; None where there is no such group, or only one rank.

    No group is ever initialised here, and nothing is sent yet.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    world = dist.group.WORLD
    assert world is not None
    if world not in _ranks:
        _ranks[world] = Ranks(dist.get_rank(), dist.get_world_size())
    return _ranks[world]


def agreed(make: Callable[[], Run]) -> Run:
    """Return the run that `make` makes, once every rank's turned out to decide alike; as is where there is one rank.

    Raises:
        RankError: as `Ranks.run`.
    """
    ranks = current()
    return make() if ranks is None else ranks.run(make)


class Ranks:
    """All ranks of the default group, as this one sees them.

    Every method but the properties is a collective: all ranks have to call the same ones in the same order. Where they
    do not, all that wait raise RankError at once, and can go on together after the next `rest`. What no method can
    tell is a rank that calls none, because it hangs or was killed: the others raise RankError when the connection
    breaks or the group's timeout is over, and from then on always.

    Attributes:
        rank: number of this one.
        size: their number.
    """

    def __init__(self, rank: int, size: int) -> None:
        """Use `current`."""
        self.rank = rank
        self.size = size
        self._channel: Channel | None = None
        self._runs = 0
        self._lost: str | None = None

    @property
    def writes(self) -> bool:
        """Whether it is for this rank to write what all have found."""
        return self.rank == 0

    def run(self, make: Callable[[], Run]) -> Run:
        """Return the run that `make` makes, once every rank's turned out to decide alike.

        Costs one exchange of a few hundred bytes; where decisions differ a second one brings the trajectories.
        Evidence is not compared. What `make` raises is raised here, and told to the other ranks.

        Raises:
            RankError: another rank decided otherwise, and where first; or it raised; or it is at no run.
        """
        try:
            made = make()
        except Exception as error:
            self._runs += 1
            text = printable(f"{type(error).__name__}: {error}")
            with suppress(RankError):  # the run's own error is the one to be shown
                self._exchange(Message(Kind.RAISED, self._runs, text=text))
            raise
        self._runs += 1
        self._compare(Message(Kind.RUN, self._runs), made.trajectories)
        return made

    def agree(self, trajectories: Sequence[Trajectory], label: str = "") -> None:
        """Return if every rank's batch of trajectories, wherever it comes from, decides as this one; as `run`.

        Args:
            trajectories: what this rank decided.
            label: what they are of, such as "request 'a'". Ranks whose labels differ are out of step, whether or not
                their decisions are equal.
        """
        mine = Message(Kind.CHECK, self._runs, label=label_digest(label), text=printable(label))
        self._compare(mine, trajectories)

    def fail(self, label: str, reason: str) -> None:
        """Come to a check without trajectories, so that the others need not wait for this rank; raises nothing there.

        They are told that this rank has none of `label`, and `reason`.
        """
        text = printable(f"{label}: {reason}")
        with suppress(RankError):  # why there are none is for the caller to raise
            self._exchange(Message(Kind.FAILED, self._runs, label=label_digest(label), text=text))

    def ask(self, answer: bool) -> tuple[bool, ...]:
        """Return the answer of every rank to a question that all have come to; RankError as `run`."""
        return tuple(message.yes for message in self._in_step(Message(Kind.ASK, self._runs, answer)))

    def of_first(self, number: int) -> int:
        """Return the `number` of rank 0, of up to 255 bits, to all ranks, which have to come to this; as `run`."""
        own = number.to_bytes(len(NO_DIGEST), "big", signed=True)
        messages = self._in_step(Message(Kind.ASK, self._runs, digest=own))
        return int.from_bytes(messages[0].digest, "big", signed=True)

    def rest(self) -> None:
        """Wait until every rank has come here or left, wherever they have been.

        Raises:
            RankError: one that came later was at a run or a check that this one did not make.
        """
        self._wait(Kind.REST)

    def leave(self) -> None:
        """Wait until every rank has come here, the last time: none can do anything with this one afterwards.

        Raises:
            RankError: one that came later was at something that this one did not do.
        """
        try:
            self._wait(Kind.LEFT)
        finally:
            self._lost = "this rank has left"

    @property
    def met(self) -> bool:
        """Whether the ranks have exchanged anything yet."""
        return self._channel is not None

    @property
    def lost(self) -> bool:
        """Whether they cannot any more."""
        return self._lost is not None

    def _compare(self, mine: Message, trajectories: Sequence[Trajectory]) -> None:
        digest = hashlib.sha256("\n".join(one.digest for one in trajectories).encode()).digest()
        messages = self._in_step(replace(mine, digest=digest))
        by_digest: dict[bytes, list[int]] = {}
        for rank, message in enumerate(messages):
            by_digest.setdefault(message.digest, []).append(rank)
        if len(by_digest) > 1:
            data = pack(trajectories)
            found = {alike[0]: (alike, unpack(self._spread(data, alike[0]))) for alike in by_digest.values()}
            raise RankError(disagreement(found))

    def _wait(self, kind: Kind) -> None:
        problem = None
        while True:
            messages = self._exchange(Message(kind, self._runs))
            if any(message is None or message.kind < Kind.REST for message in messages):
                problem = problem or out_of_step(messages)
            elif kind == Kind.REST or all(message is not None and message.kind == kind for message in messages):
                break
        self._runs = 0
        if problem is not None:
            raise RankError(problem)

    def _in_step(self, mine: Message) -> list[Message]:
        messages = self._exchange(mine)
        alike = [message for message in messages if message is not None and message.kind == mine.kind]
        if len(alike) < len(messages) or len({(message.runs, message.label) for message in alike}) > 1:
            raise RankError(out_of_step(messages))
        return alike

    def _exchange(self, mine: Message) -> list[Message | None]:
        if self._lost is not None:
            raise RankError(self._lost)
        try:
            if self._channel is None:
                self._channel = Channel()
            return [Message.unpack(data) for data in self._channel.gather(mine.pack())]
        except BaseException as error:
            # Nobody knows what the others have got, so nothing that comes later would mean anything.
            self._lost = str(error) or type(error).__name__
            raise

    def _spread(self, data: bytes, source: int) -> bytes:
        assert self._channel is not None
        try:
            return self._channel.spread(data if self.rank == source else b"", source)
        except BaseException as error:
            self._lost = str(error) or type(error).__name__
            raise
