"""A baseline as JSON and back, both ways through its schema and every check the schema cannot state."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from difftrace.core import strict_json
from difftrace.core.errors import FormatError, LogitsError, TrajectoryError
from difftrace.core.evidence import Evidence
from difftrace.core.evidence_columns import numbers
from difftrace.core.file_format import check_format, json_file, naming
from difftrace.core.limits import MAX_BASELINE_BYTES, MAX_BASELINE_NUMBERS, MAX_PROBE_BYTES
from difftrace.core.logits_reference import LogitsReference
from difftrace.core.probe_steps import unpacked
from difftrace.core.recording import (
    Baseline,
    Budget,
    ModelIdentity,
    ProbeStep,
    SamplerIdentity,
    SequenceRecord,
    TestId,
)
from difftrace.core.schemas import violation, violations
from difftrace.core.trajectory import Trajectory

FORMAT: Final = "difftrace-baseline"
VERSION: Final = (1, 0)
READABLE: Final = ((0, 1), (0, 2), (0, 3), VERSION)

_MOST_PROBLEMS: Final = 20

Decoded = TypeVar("Decoded")


def dump(baseline: Baseline, source: str = "baseline") -> bytes:
    """Return the file for `baseline`: JSON with sorted keys, in ASCII, the same bytes for the same content.

    Raises:
        FormatError: it could not be read back, say because an argument is NaN; `source` names it in the
        message.
    """
    document = {
        "format": FORMAT,
        "version": ".".join(map(str, VERSION)),
        "test": None if baseline.test is None else vars(baseline.test),
        "model": None if baseline.model is None else vars(baseline.model),
        "sampler": None if baseline.sampler is None else _sampler_document(baseline.sampler),
        "environment": dict(baseline.environment),
        "pieces": {str(token): piece for token, piece in baseline.pieces.items()},
        "digest": baseline.digest,
        "sequences": [_sequence_document(record) for record in baseline.sequences],
        **({} if baseline.budget is None else {"budget": _budget_document(baseline.budget)}),
        **({} if baseline.logits is None else {"logits": baseline.logits.to_document()}),
        **({"probes": [_probe_document(probe) for probe in baseline.probes]} if baseline.probes else {}),
    }
    with naming(source):
        data = json_file(document)
    parse(data, source)
    return data


def parse(data: bytes, source: str) -> Baseline:
    """Return the baseline in `data`, the content of the file that messages call `source`.

    Raises:
        FormatError: one line naming the file and the field.
    """
    with naming(source):
        return _baseline(data)


def problems(data: bytes, source: str) -> list[str]:
    """Return a line for everything that is wrong with the file: nothing exactly where `parse` returns a baseline.

    What breaks the schema is listed alone, up to `_MOST_PROBLEMS`, for what a field should mean is not known then.
    """
    try:
        parse(data, source)
    except FormatError as error:
        return [f"{source}: {problem}" for problem in _problems(data)] or [str(error)]
    return []


def _problems(data: bytes) -> list[str]:
    try:
        document = _document(data)
    except FormatError as error:
        return [str(error)]
    of_schema = violations("baseline", document, _MOST_PROBLEMS)
    return of_schema or list(islice(_problems_of_content(document), _MOST_PROBLEMS))


def _problems_of_content(document: dict[str, Any]) -> Iterator[str]:
    model, sequences = document["model"], document["sequences"]
    vocab_size = None if model is None else model["vocab_size"]
    checks: list[Callable[[], object]] = [partial(_pieces, document["pieces"], vocab_size)]
    if model is not None:
        checks.append(partial(_model, model))
    if _announced_in_all(sequences) <= MAX_BASELINE_NUMBERS:
        checks += [partial(_sequence, one, f"$.sequences[{i}]", vocab_size) for i, one in enumerate(sequences)]
    for check in checks:
        try:
            check()
        except FormatError as error:
            yield str(error)


def _document(data: bytes) -> Any:
    if len(data) > MAX_BASELINE_BYTES:
        raise FormatError(f"is larger than the limit of {MAX_BASELINE_BYTES} bytes for a baseline")
    document = strict_json.loads(data)
    check_format(document, FORMAT, READABLE, "baseline")
    return document


def _baseline(data: bytes) -> Baseline:
    document = _document(data)
    problem = violation("baseline", document)
    if problem is not None:
        raise FormatError(problem)
    half = strict_json.unprintable_string(document) if strict_json.may_hold_half_pairs(data) else None
    if half is not None:
        raise FormatError(f"{half}: holds half a surrogate pair, which is no character")
    model = None if document["model"] is None else _model(document["model"])
    vocab_size = None if model is None else model.vocab_size
    baseline = Baseline(
        test=None if document["test"] is None else TestId(**document["test"]),
        model=model,
        sampler=None if document["sampler"] is None else _sampler(document["sampler"]),
        environment=document["environment"],
        pieces=_pieces(document["pieces"], vocab_size),
        sequences=_sequences(document["sequences"], vocab_size),
        budget=Budget(**document["budget"]) if "budget" in document else None,
        logits=_logits(document["logits"]) if "logits" in document else None,
    )
    baseline = replace(baseline, probes=_probes(document.get("probes", []), baseline))
    if baseline.digest != document["digest"]:
        raise FormatError("$.digest: does not match the sequences; the file was changed after it was recorded")
    _check_logits(baseline)
    return baseline


def _sampler_document(sampler: SamplerIdentity) -> dict[str, Any]:
    return {"name": sampler.name, "version": sampler.version, "arguments": dict(sampler.arguments)}


def _sampler(document: dict[str, Any]) -> SamplerIdentity:
    return SamplerIdentity(document["name"], int(document["version"]), document["arguments"])


def _budget_document(budget: Budget) -> dict[str, Any]:
    values = {name: float(getattr(budget, name)) for name in ("scores", "confidences", "logits")}
    return {**values, "measured": dict(budget.measured)}


def _logits(document: dict[str, Any]) -> LogitsReference:
    try:
        return LogitsReference.from_document(document)
    except LogitsError as error:
        raise FormatError(f"$.logits: {error}") from None


def _check_logits(baseline: Baseline) -> None:
    if baseline.logits is None:
        return
    trajectories = [record.trajectory for record in baseline.sequences]
    layout = baseline.logits.layout
    if layout.lengths != tuple(t.length - t.padding for t in trajectories):
        raise FormatError("$.logits.lengths: are not those of the sequences without padding")
    if any(t.num_steps != layout.steps for t in trajectories):
        raise FormatError(f"$.logits.steps: is {layout.steps}, but the sequences have other numbers of steps")


def _model(document: dict[str, Any]) -> ModelIdentity:
    # JSON Schema takes 5.0 for an integer.
    sizes = {
        field: None if document[field] is None else int(document[field]) for field in ("vocab_size", "mask_token_id")
    }
    _check_token("$.model.mask_token_id", sizes["mask_token_id"], sizes["vocab_size"])
    return ModelIdentity(**{**document, **sizes})


def _pieces(document: dict[str, str], vocab_size: int | None) -> dict[int, str]:
    pieces = {int(token): piece for token, piece in document.items()}
    _check_token("$.pieces", max(pieces, default=None), vocab_size)
    return pieces


def _sequence_document(record: SequenceRecord) -> dict[str, Any]:
    trajectory = record.trajectory
    document: dict[str, Any] = {
        "text": record.text,
        "prompt_text": record.prompt_text,
        "digest": trajectory.digest,
        **_sizes(trajectory),
        "decisions": base64.b64encode(trajectory.to_bytes()).decode("ascii"),
    }
    if record.evidence is not None:
        payload = base64.b64encode(record.evidence.to_bytes()).decode("ascii")
        document["evidence"] = {"digest": record.evidence.digest, "payload": payload}
    return document


def _sizes(trajectory: Trajectory) -> dict[str, int]:
    return {
        "prompt_length": trajectory.prompt.size,
        "canvas_length": trajectory.length,
        "steps": trajectory.num_steps,
        "events": trajectory.num_events,
    }


def _sequences(documents: list[dict[str, Any]], vocab_size: int | None) -> tuple[SequenceRecord, ...]:
    # A few bytes may stand for a constant column of a million: what many of them expand to is bounded before
    # any is.
    announced = _announced_in_all(documents)
    if announced > MAX_BASELINE_NUMBERS:
        raise FormatError(
            f"$.sequences: they announce {announced} numbers, more than the limit of {MAX_BASELINE_NUMBERS}"
        )
    return tuple(_sequence(document, f"$.sequences[{index}]", vocab_size) for index, document in enumerate(documents))


def _announced_in_all(documents: list[dict[str, Any]]) -> int:
    return sum(map(_announced, documents))


def _announced(document: dict[str, Any]) -> int:
    decisions = int(document["prompt_length"] + document["canvas_length"] + document["events"])
    return decisions + (numbers(int(document["events"]), int(document["steps"])) if "evidence" in document else 0)


def _sequence(document: dict[str, Any], path: str, vocab_size: int | None) -> SequenceRecord:
    trajectory = _decoded(Trajectory.from_bytes, document["decisions"], f"{path}.decisions")
    for field, size in _sizes(trajectory).items():
        if document[field] != size:
            raise FormatError(f"{path}.{field}: is {document[field]}, but the decisions hold {size}")
    if trajectory.digest != document["digest"]:
        raise FormatError(f"{path}.digest: does not match the decisions; the file was changed after it was recorded")
    _check_vocabulary(trajectory, path, vocab_size)
    evidence = _evidence(document["evidence"], f"{path}.evidence") if "evidence" in document else None
    try:
        return SequenceRecord(trajectory, document["text"], document["prompt_text"], evidence)
    except TrajectoryError as error:
        raise FormatError(f"{path}.evidence: {error}") from None


def _evidence(document: dict[str, str], path: str) -> Evidence:
    evidence = _decoded(Evidence.from_bytes, document["payload"], f"{path}.payload")
    if evidence.digest != document["digest"]:
        raise FormatError(f"{path}.digest: does not match the payload; the file was changed after it was recorded")
    return evidence


def _probe_document(probe: ProbeStep) -> dict[str, Any]:
    return {**vars(probe), "payload": base64.b64encode(probe.payload).decode("ascii")}


def _probes(documents: list[dict[str, Any]], baseline: Baseline) -> tuple[ProbeStep, ...]:
    """Return the probes, each unpacked once, so that what is kept is known to be whole."""
    announced = sum(int(document["size"]) for document in documents)
    if announced > MAX_PROBE_BYTES:
        raise FormatError(f"$.probes: they announce {announced} bytes, more than the limit of {MAX_PROBE_BYTES}")
    probes: dict[tuple[int, int | None], ProbeStep] = {}
    for index, document in enumerate(documents):
        path, sequence = f"$.probes[{index}]", document["sequence"]
        step, sequence = int(document["step"]), None if sequence is None else int(sequence)
        if (step, sequence) in probes:
            raise FormatError(f"{path}: is of the same step and sequence as another")
        _check_place(step, sequence, baseline, path)
        with naming(f"{path}.payload"):
            probe = ProbeStep(step, sequence, int(document["size"]), document["digest"], _binary(document["payload"]))
            unpacked(probe)
        probes[step, sequence] = probe
    return tuple(probes.values())


def _check_place(step: int, sequence: int | None, baseline: Baseline, path: str) -> None:
    records = baseline.sequences if sequence is None else baseline.sequences[sequence : sequence + 1]
    if not records:
        raise FormatError(f"{path}.sequence: there is no sequence {sequence}")
    if any(step >= record.trajectory.num_steps for record in records):
        raise FormatError(f"{path}.step: there is no step {step}")


def _decoded(decode: Callable[[bytes], Decoded], text: str, path: str) -> Decoded:
    with naming(path):
        return decode(_binary(text))


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("is not base64") from None


def _check_vocabulary(trajectory: Trajectory, path: str, vocab_size: int | None) -> None:
    if vocab_size is None:
        return
    for name in ("prompt", "initial", "tokens"):
        column = getattr(trajectory, name)
        outside = np.flatnonzero(column >= vocab_size)
        if outside.size:
            index = int(outside[0])
            where = f"{name}[{index}]"
            if name == "tokens":
                where = f"step {trajectory.steps[index]}, position {trajectory.positions[index]}"
            _check_token(f"{path}.decisions: {where}", int(column[index]), vocab_size)


def _check_token(where: str, token: int | None, vocab_size: int | None) -> None:
    if token is not None and vocab_size is not None and token >= vocab_size:
        raise FormatError(f"{where}: the token {token} is outside the vocabulary of {vocab_size}")
