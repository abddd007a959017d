"""What every rank says to all others where they compare notes: a few hundred bytes of fixed size."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# Magic and version, kind, yes or no, runs so far, digest, digest of the label, UTF-8 text filled up with zeros.
_LAYOUT: Final = struct.Struct("<4sBBxxI32s16s196s")
_MAGIC: Final = b"DTR2"
_TEXT: Final = 196

SIZE: Final = _LAYOUT.size
NO_DIGEST: Final = bytes(32)
NO_LABEL: Final = bytes(16)


def label_digest(label: str) -> bytes:
    """Return 16 bytes that tell one label from another, however long they are; `NO_LABEL` of an empty one."""
    if not label:
        return NO_LABEL
    return hashlib.sha256(label.encode("utf-8", "surrogatepass")).digest()[: len(NO_LABEL)]


class Kind(IntEnum):
    """Where a rank is."""

    RUN = 1
    RAISED = 2
    CHECK = 3
    FAILED = 4
    ASK = 5
    REST = 6
    LEFT = 7


@dataclass(frozen=True)
class Message:
    """One rank's word.

    Attributes:
        kind: at the end of a run, or where it raised; at a check, or where it has nothing to bring to it; at a
            question; at rest between runs; gone for good.
        runs: runs since the ranks last rested together, the one that just ended included.
        yes: the answer to a question.
        digest: 32 bytes over all decisions of the run or check; at a question the number that a rank has to tell.
        label: `label_digest` of what the check is of.
        text: what was raised, or the label; cut to what there is room for.
    """

    kind: Kind
    runs: int = 0
    yes: bool = False
    digest: bytes = NO_DIGEST
    label: bytes = NO_LABEL
    text: str = ""

    def pack(self) -> bytes:
        """Return `SIZE` bytes."""
        text = self.text.encode("utf-8", "replace")[:_TEXT]
        return _LAYOUT.pack(_MAGIC, self.kind, self.yes, min(self.runs, 2**32 - 1), self.digest, self.label, text)

    @classmethod
    def unpack(cls, data: bytes) -> Message | None:
        """Return what `data` says; None if another version of this package wrote it, or something else."""
        if len(data) != SIZE:
            return None
        magic, kind, yes, runs, digest, label, text = _LAYOUT.unpack(data)
        if magic != _MAGIC or kind not in tuple(Kind):
            return None
        return cls(Kind(kind), runs, bool(yes), digest, label, text.rstrip(b"\0").decode("utf-8", "ignore"))
