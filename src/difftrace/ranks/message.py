"""What every rank says to all others where they compare notes: a few hundred bytes of fixed size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# Magic and version, kind, yes or no, runs so far, digest, UTF-8 text filled up with zeros.
_LAYOUT: Final = struct.Struct("<4sBBxxI32s212s")
_MAGIC: Final = b"DTR1"
_TEXT: Final = 212

SIZE: Final = _LAYOUT.size
NO_DIGEST: Final = bytes(32)


class Kind(IntEnum):
    """Where a rank is."""

    RUN = 1
    RAISED = 2
    CHECK = 3
    ASK = 4
    REST = 5
    LEFT = 6


@dataclass(frozen=True)
class Message:
    """One rank's word.

    Attributes:
        kind: at the end of a run, or where it raised; at a check, at a question; at rest between runs; gone for good.
        runs: runs since the ranks last rested together, the one that just ended included.
        yes: the answer to a question.
        digest: 32 bytes over all decisions of the run or check.
        text: what was raised; cut to what there is room for.
    """

    kind: Kind
    runs: int = 0
    yes: bool = False
    digest: bytes = NO_DIGEST
    text: str = ""

    def pack(self) -> bytes:
        """Return `SIZE` bytes."""
        text = self.text.encode("utf-8", "replace")[:_TEXT]
        return _LAYOUT.pack(_MAGIC, self.kind, self.yes, min(self.runs, 2**32 - 1), self.digest, text)

    @classmethod
    def unpack(cls, data: bytes) -> Message | None:
        """Return what `data` says; None if another version of this package wrote it, or something else."""
        if len(data) != SIZE:
            return None
        magic, kind, yes, runs, digest, text = _LAYOUT.unpack(data)
        if magic != _MAGIC or kind not in tuple(Kind):
            return None
        return cls(Kind(kind), runs, bool(yes), digest, text.rstrip(b"\0").decode("utf-8", "ignore"))
