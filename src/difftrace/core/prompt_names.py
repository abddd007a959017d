"""Where the baselines of prompts lie: one file each, named for the prompt's id, else for its text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from difftrace.core.baseline_names import file_stem
from difftrace.core.file_format import json_bytes
from difftrace.core.prompts import Prompt
from difftrace.core.test_id import TestId

_LONGEST: Final = 110
_HASH_DIGITS: Final = 8


def file_names(batches: Sequence[Sequence[Prompt]]) -> list[str]:
    """Return the file name of each batch of prompts, without extension: no two are alike, in whatever case.

    A name says nothing of the other batches, so that it stays when some are added behind; where two prompts share a
    name, say the same text with other arguments, all but the first get a hash of their arguments as well.
    """
    taken: set[str] = set()
    names = []
    for batch in batches:
        name = _name(batch)
        if name.casefold() in taken:
            told = json_bytes([[_label(one), dict(one.options)] for one in batch])
            name = f"{name[:_LONGEST]}~{hashlib.sha256(told).hexdigest()[:_HASH_DIGITS]}"
        taken.add(name.casefold())
        names.append(name)
    return names


def prompt_test(batch: Sequence[Prompt], module: str | None) -> TestId | None:
    """Return what the baseline of a batch belongs to: the ids of its prompts in the file `module`, if all have one."""
    ids = [one.id for one in batch if one.id is not None]
    return None if module is None or len(ids) < len(batch) else TestId(module, ", ".join(ids), None)


def _name(batch: Sequence[Prompt]) -> str:
    stem = file_stem(TestId("", _label(batch[0]), None))
    if len(batch) == 1:
        return stem
    # Of a batch every prompt counts, since each is recorded among the others.
    digest = hashlib.sha256(json_bytes([_label(one) for one in batch])).hexdigest()
    return f"{stem[:_LONGEST]}+{len(batch) - 1}~{digest[:_HASH_DIGITS]}"


def _label(prompt: Prompt) -> str:
    if prompt.id is not None:
        return prompt.id
    return prompt.content if isinstance(prompt.content, str) else "tokens " + " ".join(map(str, prompt.content))
