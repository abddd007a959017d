"""A report as JSON and back, both ways through its schema and what the schema cannot state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Final

from difftrace.core import strict_json
from difftrace.core.checked import (
    BaselineFile,
    Checked,
    FirstDivergence,
    ReceivedFile,
    ReportedMeasure,
    ReportedOutcome,
    ReportedSuspect,
)
from difftrace.core.errors import FormatError
from difftrace.core.file_format import check_format
from difftrace.core.limits import MAX_REPORT_BYTES
from difftrace.core.run_report import Report, RunSettings, SeenTest, Selection
from difftrace.core.schemas import violation
from difftrace.core.text import printable

FORMAT: Final = "difftrace-report"
VERSION: Final = (0, 1)


def dump(report: Report, source: str = "report") -> bytes:
    """Return the file for `report`: JSON with sorted keys, in ASCII.

    Raises:
        FormatError: it could not be read back; `source` names it in the message.
    """
    try:
        text = json.dumps(report_document(report), sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{source}: holds a value that JSON cannot ({printable(str(error))})") from None
    data = text.encode("ascii") + b"\n"
    parse(data, source)
    return data


def parse(data: bytes, source: str) -> Report:
    """Return the report in `data`, the content of the file that messages call `source`.

    Raises:
        FormatError: one line naming the file and the field.
    """
    try:
        return _report(data)
    except FormatError as error:
        raise type(error)(f"{source}: {error}") from error.__cause__


def report_document(report: Report) -> dict[str, Any]:
    """Return the document that schemas/report.schema.json describes."""
    return {
        "format": FORMAT,
        "version": ".".join(map(str, VERSION)),
        **_summary(report),
        "incomplete_because": list(report.incomplete_because),
        "rootdir": report.rootdir,
        "results": report.results,
        "runs": [asdict(run) for run in report.runs],
        "environments": [dict(environment) for environment in report.environments],
        "tests": [vars(test) for test in report.tests],
        "checks": [check_document(check) for check in report.checks],
    }


def check_document(check: Checked) -> dict[str, Any]:
    """Return one entry of a report's checks."""
    document = {name: _plain(value) for name, value in vars(check).items()}
    document["class"] = document.pop("divergence_class")
    return document


def _plain(value: Any) -> Any:
    # What `dataclasses.asdict` does, which copies every value as well.
    if is_dataclass(value):
        return {name: _plain(one) for name, one in vars(value).items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _summary(report: Report) -> dict[str, Any]:
    """Return what follows from the rest, for readers that do not want to add up."""
    return {
        "complete": report.complete,
        "selection": {
            "complete": not report.partial_because,
            "partial_because": list(report.partial_because),
            **{name: list(value) for name, value in vars(report.selection).items()},
        },
        "counts": {"checks": len(report.checks), "status": report.statuses, "class": report.classes},
    }


def _report(data: bytes) -> Report:
    if len(data) > MAX_REPORT_BYTES:
        raise FormatError(f"is larger than the limit of {MAX_REPORT_BYTES} bytes for a report")
    document = strict_json.loads(data)
    check_format(document, FORMAT, (VERSION,), "report")
    problem = violation("report", document)
    if problem is not None:
        raise FormatError(problem)
    half = strict_json.unprintable_string(document) if strict_json.may_hold_half_pairs(data) else None
    if half is not None:
        raise FormatError(f"{half}: holds half a surrogate pair, which is no character")
    selection = document["selection"]
    report = Report(
        incomplete_because=tuple(document["incomplete_because"]),
        rootdir=document["rootdir"],
        results=document["results"],
        runs=tuple(RunSettings(**_tuples(run)) for run in document["runs"]),
        selection=Selection(*(tuple(selection[name]) for name in ("covers", "narrowed_by", "filtered_by"))),
        environments=tuple(document["environments"]),
        tests=tuple(SeenTest(**test) for test in document["tests"]),
        checks=tuple(_checked(check) for check in document["checks"]),
    )
    _check_consistent(report, document)
    return report


def _checked(document: Mapping[str, Any]) -> Checked:
    values = {name: value for name, value in document.items() if name != "class"}
    made: dict[str, Any] = {
        name: None if document[name] is None else kind(**document[name])
        for name, kind in (
            ("outcome", ReportedOutcome),
            ("first_divergence", FirstDivergence),
            ("baseline", BaselineFile),
            ("received", ReceivedFile),
        )
    }
    return Checked(
        **{
            **values,
            **made,
            "divergence_class": document["class"],
            "cannot_tell": tuple(document["cannot_tell"]),
            "measured": tuple(ReportedMeasure(**one) for one in document["measured"]),
            "suspects": tuple(ReportedSuspect(**one) for one in document["suspects"]),
        }
    )


def _check_consistent(report: Report, document: Mapping[str, Any]) -> None:
    for name, value in _summary(report).items():
        if document[name] != value:
            raise FormatError(f"$.{name}: does not follow from the rest; the file was changed after it was written")
    for index, check in enumerate(report.checks):
        _check_index(f"$.checks[{index}].run", check.run, report.runs)
        _check_index(f"$.checks[{index}].environment", check.environment, report.environments)
    _check_unique("$.checks", [(check.nodeid, check.name) for check in report.checks])
    _check_unique("$.tests", [(test.nodeid, None) for test in report.tests])


def _check_index(path: str, index: int | None, values: Sequence[object]) -> None:
    if index is not None and index >= len(values):
        raise FormatError(f"{path}: is {index}, but there are {len(values)}")


def _check_unique(path: str, keys: Sequence[tuple[str, str | None]]) -> None:
    seen = set()
    for index, key in enumerate(keys):
        if key in seen:
            raise FormatError(f"{path}[{index}]: {printable(key[0])} is there twice")
        seen.add(key)


def _tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
