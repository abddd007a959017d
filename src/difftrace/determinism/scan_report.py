"""What a scan found: findings as values, as JSON and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from difftrace.core.text import printable
from difftrace.determinism.hazards.row import Kind

# Operations that ran while no module of the model did.
OUTSIDE: Final = "outside"

_VARY: Final[frozenset[Kind]] = frozenset({"random", "nondeterministic"})
_ORDER: Final[tuple[Kind, ...]] = ("random", "nondeterministic", "tie-unspecified", "backend-chosen")
_DEVICE_NAMES: Final = {"cpu": "CPU", "cuda": "CUDA/ROCm"}
_WIDTH: Final = 100
_MODULES_SHOWN: Final = 4
_UNKNOWN_SHOWN: Final = 6


@dataclass(frozen=True)
class Finding:
    """One operation in one module whose result can differ between runs.

    `kind`: `random`, `nondeterministic`, `tie-unspecified` or `backend-chosen`. `operation` is its ATen name
    (`scatter_add_`) or, for what consists of several, the public one (`dropout`, `scaled_dot_product_attention`).
    `module` is the dotted name, empty for the model itself, `outside` where no module ran. `count` is how often it ran,
    `sample` dtypes and shapes of the tensors it was first given, `devices` where the reason holds (`any`, or of `cpu`
    and `cuda`, which stands for ROCm too), `backend` the attention backend that ran, if seen, `source` where the
    reason is documented.
    """

    kind: Kind
    operation: str
    module: str
    count: int
    sample: str
    devices: tuple[str, ...]
    why: str
    fix: str
    source: str
    backend: str | None = None

    def concerns(self, device_kind: str) -> bool:
        """Whether the reason holds on devices of this kind: `cpu`, or `cuda` for CUDA and ROCm."""
        return "any" in self.devices or device_kind in self.devices


@dataclass(frozen=True)
class ScanReport:
    """What one forward showed.

    `findings` by kind, then in the order in which they first ran. `operations` counts everything that ran, `device` is
    the kind of device it ran on, `training` whether any module was in training mode. `unknown` names operations of
    other libraries, and such that run functions of their own (cond), which nothing here can judge.
    """

    findings: tuple[Finding, ...]
    operations: int
    device: str
    training: bool
    torch: str
    unknown: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found, for any device."""
        return not self.findings

    def varying(self, device_kind: str | None = None) -> tuple[Finding, ...]:
        """Return the findings that make equal runs differ on `device_kind` (default: the device scanned on).

        These are the random and the nondeterministic ones. Ties and chosen backends make equal runs differ between
        machines and versions, not on one machine.
        """
        device_kind = device_kind or self.device
        return tuple(found for found in self.findings if found.kind in _VARY and found.concerns(device_kind))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; `schemas/scan.schema.json` describes them."""
        return {
            "format": "difftrace-scan",
            "version": "0.1",
            "torch": self.torch,
            "device": self.device,
            "training": self.training,
            "operations": self.operations,
            "clean": self.clean,
            "findings": [asdict(found) | {"devices": list(found.devices)} for found in self.findings],
            "unknown": list(self.unknown),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by kind, the gravest first, and otherwise as they come."""
    return tuple(sorted(findings, key=lambda found: _ORDER.index(found.kind)))


def _lines(report: ScanReport) -> Iterator[str]:
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for found in report.findings:
        alike.setdefault((found.kind, found.operation, found.devices, found.why, found.backend), []).append(found)
    for group in alike.values():
        yield from _block(group)
        yield ""
    if report.unknown:
        names = _some(report.unknown, _UNKNOWN_SHOWN)
        yield from _wrapped("not judged, since what they run is not known: ", names)
    count = len(report.findings)
    mode = "in training mode" if report.training else "in evaluation mode"
    yield f"{count or 'no'} finding{'s' * (count != 1)} in {report.operations} operations on {report.device}, {mode}"


def _block(group: list[Finding]) -> Iterator[str]:
    first = group[0]
    where = "" if "any" in first.devices else f" on {' and '.join(_DEVICE_NAMES[name] for name in first.devices)}"
    ran = f" ({first.backend} ran)" if first.backend else ""
    count = sum(found.count for found in group)
    yield f"{first.kind}{where}: {printable(first.operation)}{ran}, {count} time{'s' * (count != 1)}"
    yield from _wrapped("  in   ", _some([found.module or "the model itself" for found in group], _MODULES_SHOWN))
    if first.sample:
        yield from _wrapped("  on   ", printable(first.sample))
    yield from _wrapped("  why  ", first.why)
    yield from _wrapped("  fix  ", first.fix)


def _some(names: Iterable[str], most: int) -> str:
    shown = [printable(name) for name in names]
    more = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {more} more" if more > 0 else "")


def _wrapped(label: str, text: str) -> list[str]:
    indent = " " * min(len(label), 7)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=label,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
