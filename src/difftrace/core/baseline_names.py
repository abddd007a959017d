"""Where a check's baseline lies: a file beside the test module, named by the test's own id alone.

`__difftrace__/<module>/<Class.test[param]>[.<name>][~<hash>][@<platform key>].json`. The hash is there wherever the
readable part alone could be mistaken for another test's: when characters were replaced, when it was cut, or when letter
case alone may tell it from another on a file system that ignores case. The names are good for Windows too.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from difftrace.core.test_id import TestId

FOLDER: Final = "__difftrace__"
RECEIVED: Final = "received"

_LONGEST_READABLE: Final = 100
_LONGEST_KEY: Final = 40
_HASH_DIGITS: Final = 8
_OUTSIDE_NAME: Final = re.compile(r"[^A-Za-z0-9_+=,-]")
_OUTSIDE_PARAMETER: Final = re.compile(r"\.{2,}|[^A-Za-z0-9_+=,.-]")
_RESERVED_ON_WINDOWS: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@lru_cache(maxsize=256)
def file_stem(test: TestId) -> str:
    """Return the file name without platform key and extension."""
    head, bracket, parameter = test.id.partition("[")
    parameter = parameter.removesuffix("]")
    *classes, function = head.split("::")
    readable = ".".join(_OUTSIDE_NAME.sub("_", part) for part in (*classes, function))
    if bracket:
        readable += f"[{_OUTSIDE_PARAMETER.sub('_', parameter)}]"
    faithful = readable == test.id.replace("::", ".")
    if test.name is not None:
        readable += f".{test.name}"
    # "a.b" may be class and test or test and check: capital letters tell the two apart, or the hash does.
    told_apart = all(part[:1].isupper() for part in classes) and function == function.lower()
    lower = parameter == parameter.lower() and (test.name or "") == (test.name or "").lower()
    reserved = _RESERVED_ON_WINDOWS.match(readable) is not None
    if faithful and told_apart and lower and not reserved and len(readable) <= _LONGEST_READABLE:
        return readable
    digest = hashlib.sha256(f"{test.id}\0{test.name or ''}".encode()).hexdigest()
    return f"{readable[:_LONGEST_READABLE]}~{digest[:_HASH_DIGITS]}"


def baseline_path(module: Path, test: TestId, platform: str | None = None) -> Path:
    """Return the baseline of `test`, which lies in the file `module`; `platform` asks for the one of that platform."""
    key = "" if platform is None else f"@{_OUTSIDE_PARAMETER.sub('_', platform)[:_LONGEST_KEY]}"
    name = f"{file_stem(test)}{key}.json"
    assert not {"/", "\\", ":"} & set(name), name
    return module.parent / FOLDER / module.stem / name


def received_path(module: str, baseline: str) -> str:
    """Return where in a results folder the received run lies whose baseline in the test file `module` has this name.

    `module` is seen from the root folder. The path has neither `..` nor characters that file systems disagree about.
    """
    parts = [_safe(part) for part in PurePosixPath(module).parts]
    return "/".join((RECEIVED, *parts, baseline))


def _safe(part: str) -> str:
    safe = _OUTSIDE_PARAMETER.sub("_", part).rstrip(".") or "_"
    if safe == part and not _RESERVED_ON_WINDOWS.match(part):
        return part
    digest = hashlib.sha256(part.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{safe[:_LONGEST_READABLE]}~{digest[:_HASH_DIGITS]}"
