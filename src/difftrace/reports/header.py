"""What a baseline says of itself before its canvases: what ran, where, with what, how much came out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from difftrace.core.recording import Baseline, ModelIdentity, SamplerIdentity, SequenceRecord
from difftrace.core.text import printable
from difftrace.reports.columns import pad, wrapped
from difftrace.reports.texts import equal_text

_LABEL: Final = 10
# Of the fields of an environment those that a reader looks for first.
_TOLD: Final = ("platform_key", "device", "dtype", "torch", "hip", "cuda", "python", "profile", "attention_backend")
_DIGEST: Final = len("sha256:") + 12


def header_lines(baseline: Baseline, path: str, columns: int) -> list[str]:
    """Return the lines about the baseline in the file `path`, at most `columns` wide but for the path."""
    test, model, sampler, budget = baseline.test, baseline.model, baseline.sampler, baseline.budget
    named = "" if test is None or test.name is None else f", check {test.name}"
    fields = {
        "test": "none" if test is None else f"{test.module}::{test.id}{named}",
        "model": "not known" if model is None else _model(model),
        "sampler": "not known" if sampler is None else _sampler(sampler),
        "ran on": _environment(baseline.environment),
        "budget": "default for the dtype"
        if budget is None
        else ", ".join(f"{name} {getattr(budget, name):.2g}" for name in ("scores", "confidences", "logits")),
        "holds": _counts(baseline),
        "digest": short_digest(baseline.digest),
    }
    return [printable(path), *(line for label, text in fields.items() for line in _field(label, text, columns))]


def sequence_lines(record: SequenceRecord, index: int, total: int, columns: int) -> Iterator[str]:
    """Yield the lines about one sequence."""
    trajectory = record.trajectory
    outside = "" if trajectory.prompt_in_canvas else " outside the canvas"
    sizes = [
        f"prompt of {trajectory.prompt.size} tokens{outside}",
        f"canvas of {trajectory.length}",
        f"{trajectory.num_steps} steps",
        f"{trajectory.num_events} commits",
    ]
    if trajectory.padding:
        sizes.insert(1, f"padding of {trajectory.padding}")
    if trajectory.attention_mask is not None:
        hidden = int((trajectory.attention_mask == 0).sum())
        sizes.append(f"{hidden} positions hidden from attention")
    yield from wrapped(f"sequence {index} of {total}: {', '.join(sizes)}", "", columns)
    for label, text in (("prompt", record.prompt_text), ("text", record.text)):
        if text is not None:
            yield equal_text(pad(label, _LABEL - 1), text, columns)


def short_digest(digest: str | None) -> str:
    """Return the start of a digest, which tells it from others."""
    return "not known" if digest is None else f"{digest[:_DIGEST]}…"


def _model(model: ModelIdentity) -> str:
    revision = "" if model.revision is None else f" at {model.revision[:12]}"
    digests = (f"{name} {short_digest(getattr(model, name))}" for name in ("weights", "config", "tokenizer"))
    sizes = (("vocabulary", model.vocab_size), ("mask", model.mask_token_id))
    return ", ".join(
        [f"{model.name}{revision}", *digests, *(f"{name} {size}" for name, size in sizes if size is not None)]
    )


def _sampler(sampler: SamplerIdentity) -> str:
    arguments = (f"{name}={_value(value)}" for name, value in sorted(sampler.arguments.items()))
    return ", ".join([f"{sampler.name} version {sampler.version}", *arguments])


def _environment(environment: Mapping[str, Any]) -> str:
    if not environment:
        return "not known"
    told = {name: environment[name] for name in _TOLD if environment.get(name) is not None}
    parts = [f"{name} {_value(value)}" for name, value in told.items()]
    if isinstance(environment.get("canary"), str):
        parts.append(f"canary {short_digest(environment['canary'])}")
    return f"{', '.join(parts)} ({len(environment)} fields; --json lists all)"


def _counts(baseline: Baseline) -> str:
    count = len(baseline.sequences)
    with_evidence = sum(record.evidence is not None for record in baseline.sequences)
    evidence = {0: "no evidence", count: "evidence"}.get(with_evidence, f"evidence of {with_evidence}")
    commits = sum(record.trajectory.num_events for record in baseline.sequences)
    return f"{count} sequence{'' if count == 1 else 's'}, {commits} commits, {evidence}, {len(baseline.pieces)} pieces"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _field(label: str, text: str, columns: int) -> list[str]:
    first, *rest = wrapped(text, " " * _LABEL, columns)
    return [f"{pad(label, _LABEL)}{first[_LABEL:]}", *rest]
