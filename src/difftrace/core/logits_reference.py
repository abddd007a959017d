"""How a baseline refers to the file of its run's logits."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from difftrace.core.errors import LogitsError
from difftrace.core.logits_codec import Lossless, Lossy, Method, Top
from difftrace.core.logits_layout import LogitsLayout, check_method

SUFFIX: Final = ".logits"

_FILE_NAME: Final = re.compile(r"[^/\\\x00]+\.logits")
_NUMBERS: Final = ("steps", "passes", "vocabulary")


@dataclass(frozen=True)
class LogitsReference:
    """A file of logits, by name and content.

    Attributes:
        file: its name, beside the baseline.
        digest: `sha256:` and 64 hex digits, as `difftrace.core.logits_layout` says.
        layout: what it holds.
        method: how.

    Raises:
        LogitsError: the name is no plain name that ends in .logits, or method and layout do not go together.
    """

    file: str
    digest: str
    layout: LogitsLayout
    method: Method

    def __post_init__(self) -> None:
        check_name(self.file)
        check_method(self.layout, self.method)

    def to_document(self) -> dict[str, Any]:
        """Return the member `logits` of a baseline."""
        layout = {**vars(self.layout), "lengths": list(self.layout.lengths)}
        return {"file": self.file, "digest": self.digest, "method": _method_document(self.method), **layout}

    @staticmethod
    def from_document(document: dict[str, Any]) -> LogitsReference:
        """Return what the member `logits`, which keeps the schema, says; raises LogitsError."""
        # JSON Schema takes 5.0 for an integer.
        numbers = {name: int(document[name]) for name in _NUMBERS}
        layout = LogitsLayout(dtype=document["dtype"], lengths=tuple(map(int, document["lengths"])), **numbers)
        return LogitsReference(document["file"], document["digest"], layout, _method(document["method"]))


@dataclass(frozen=True, eq=False)
class RecordedLogits:
    """The file of a run's logits, wherever it lies.

    Attributes:
        path: the file.
        reference: what it holds.
    """

    path: Path
    reference: LogitsReference

    def beside(self, baseline: Path) -> LogitsReference:
        """Return the reference under the name that the file has beside the file `baseline`."""
        return replace(self.reference, file=side_file(baseline).name)


def check_name(name: str) -> None:
    """Raise LogitsError unless `name` is a file name without folder that ends in .logits."""
    if _FILE_NAME.fullmatch(name) is None:
        raise LogitsError(f"{name!r} is no name of a file of logits: no folder, and {SUFFIX} at its end")


def side_file(baseline: Path) -> Path:
    """Return where the logits of the baseline in the file `baseline` belong."""
    return baseline.with_name(f"{baseline.stem}{SUFFIX}")


def method_named(text: str) -> Method:
    """Return the method that "lossless", "lossy:0.01" or "top:32" names.

    Raises:
        LogitsError: it names none.
    """
    name, _, parameter = text.partition(":")
    try:
        if name == "lossless" and not parameter:
            return Lossless()
        if name == "lossy":
            return Lossy(float(parameter))
        if name == "top":
            return Top(int(parameter))
    except ValueError as error:
        if isinstance(error, LogitsError):
            raise
    raise LogitsError(f"logits are kept by lossless, lossy:BOUND or top:K, not {text!r}")


def _method_document(method: Method) -> dict[str, Any]:
    if isinstance(method, Lossy):
        return {"name": "lossy", "bound": float(method.bound)}
    return {"name": "top", "k": method.k} if isinstance(method, Top) else {"name": "lossless"}


def _method(document: dict[str, Any]) -> Method:
    if document["name"] == "lossy":
        return Lossy(float(document["bound"]))
    return Top(int(document["k"])) if document["name"] == "top" else Lossless()
