"""Rules on what went in: INPUT, CONFIG and WEIGHTS, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from difftrace.core.classes import Finding
from difftrace.core.comparison import first_difference
from difftrace.core.recording import Baseline, ModelIdentity, SamplerIdentity, SequenceRecord
from difftrace.core.sampler_defaults import arguments_alike
from difftrace.core.text import printable
from difftrace.core.trajectory import Trajectory

_ABSENT: Final = object()
_LONGEST: Final = 40


def identity_finding(golden: Baseline, observed: Baseline) -> Finding | None:
    """Return the first rule that the two runs break as what they are, or None.

    Only what both sides name is compared; a sampler's argument that one side does not name counts as its default, where
    that is known. The first canvas is judged after the configuration, because `gen_length`
    and the mask's id, which are configuration, shape it.
    """
    return (
        _input(golden, observed)
        or _config(golden, observed)
        or _first_canvas(golden, observed)
        or _weights(golden, observed)
    )


def changed_identity(baseline: Baseline, model: ModelIdentity | None) -> tuple[str, ...]:
    """Return what of a model as it is stored ("weights", "config") is not what the baseline was recorded with."""
    if baseline.model is None or model is None:
        return ()
    pairs = {name: (getattr(baseline.model, name), getattr(model, name)) for name in ("weights", "config")}
    return tuple(name for name, (golden, own) in pairs.items() if golden is not None and golden != own)


def unknown_identities(golden: Baseline, observed: Baseline) -> Iterator[str]:
    """Yield a sentence for everything that these rules could not compare."""
    sides = (("the golden", golden), ("the observed run", observed))
    lacking: dict[tuple[str, ...], list[str]] = {}
    for what, attribute in (("weights", "weights"), ("configuration", "config"), ("tokenizer", "tokenizer")):
        whose = tuple(side for side, baseline in sides if getattr(baseline.model, attribute, None) is None)
        lacking.setdefault(whose, []).append(what)
    for whose, fields in lacking.items():
        if whose:
            same = f"{_listed(fields)} {_are(fields)} the same"
            yield f"Whether the model's {same}: {_listed(whose)} {_name(whose)} no digest."
    whose = tuple(side for side, baseline in sides if baseline.sampler is None)
    if whose:
        yield f"Whether the sampler and its arguments are the same: {_listed(whose)} {_name(whose)} none."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 and not names[0].endswith("s") else "are"


def _name(names: Sequence[str]) -> str:
    return "names" if len(names) == 1 else "name"


def _input(golden: Baseline, observed: Baseline) -> Finding | None:
    if len(golden.sequences) != len(observed.sequences):
        counts = f"{len(golden.sequences)} sequences in the golden, {len(observed.sequences)} in the observed run"
        return Finding("INPUT", f"The batches differ in size: {counts}.")
    for index, (one, other) in enumerate(zip(golden.sequences, observed.sequences, strict=True)):
        what = _prompt_difference(one.trajectory, other.trajectory)
        if what is not None:
            return Finding("INPUT", f"{what[0]}.", sequence=index, position=what[1])
    if _both_known_and_different("tokenizer", golden.model, observed.model):
        return Finding("INPUT", "The tokenizers differ in their files.")
    for index, (one, other) in enumerate(zip(golden.sequences, observed.sequences, strict=True)):
        if _read_differently(one, other):
            return Finding("INPUT", "The same tokens read as another text, so the tokenizers differ.", sequence=index)
    return None


def _prompt_difference(golden: Trajectory, observed: Trajectory) -> tuple[str, int | None] | None:
    index = first_difference(golden.prompt, observed.prompt)
    if index is not None:
        return f"The prompts differ, first at token {index}", index
    if golden.padding != observed.padding:
        return f"The golden has {golden.padding} positions of padding, the observed run {observed.padding}", None
    shared = min(golden.length, observed.length)
    masks = [
        np.ones(t.length, dtype=np.int32) if t.attention_mask is None else t.attention_mask for t in (golden, observed)
    ]
    index = first_difference(masks[0][:shared], masks[1][:shared])
    return None if index is None else (f"The attention masks differ, first at position {index}", index)


def _read_differently(golden: SequenceRecord, observed: SequenceRecord) -> bool:
    if None not in (golden.prompt_text, observed.prompt_text) and golden.prompt_text != observed.prompt_text:
        return True
    if None in (golden.text, observed.text) or golden.text == observed.text:
        return False
    return np.array_equal(golden.trajectory.final, observed.trajectory.final)


def _config(golden: Baseline, observed: Baseline) -> Finding | None:
    one, other = golden.sampler, observed.sampler
    if one is not None and other is not None:
        named = zip((one, other), arguments_alike(one, other), strict=True)
        changed = _changed(*(_sampler_fields(sampler, arguments) for sampler, arguments in named))
        if changed is not None:
            return Finding("CONFIG", f"The sampler's {changed}.")
    for field in ("config", "vocab_size", "mask_token_id"):
        if _both_known_and_different(field, golden.model, observed.model):
            values = "" if field == "config" else f": {getattr(golden.model, field)} → {getattr(observed.model, field)}"
            return Finding("CONFIG", f"The models differ in {_MODEL_FIELDS[field]}{values}.")
    return None


def _sampler_fields(sampler: SamplerIdentity, arguments: Mapping[str, Any]) -> dict[str, Any]:
    named = {f"argument {name}": value for name, value in arguments.items()}
    return {"name": sampler.name, "version": sampler.version, **named}


_MODEL_FIELDS: Final = {
    "config": "their configuration",
    "vocab_size": "the size of their vocabulary",
    "mask_token_id": "the id of the mask",
}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Return the fields that differ, the first with its values, or None."""
    names = [name for name in {**before, **after} if not _same(before.get(name, _ABSENT), after.get(name, _ABSENT))]
    if not names:
        return None
    first = f"{_shown(names[0])} differs: {_value(before, names[0])} → {_value(after, names[0])}"
    if len(names) == 1:
        return first
    rest = ", ".join(map(_shown, names[1:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{first}; so does {rest}" if len(names) == 2 else f"{first}; so do {rest}"


def _same(one: object, other: object) -> bool:
    # True equals 1 for Python, but it is another argument.
    return one is other or (one == other and isinstance(one, bool) == isinstance(other, bool))


def _value(fields: Mapping[str, Any], name: str) -> str:
    return _shown(str(fields[name])) if name in fields else "nothing"


def _shown(text: str) -> str:
    shown = printable(text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown}…"


def _first_canvas(golden: Baseline, observed: Baseline) -> Finding | None:
    for index, (one, other) in enumerate(zip(golden.sequences, observed.sequences, strict=True)):
        position = first_difference(one.trajectory.initial, other.trajectory.initial)
        if position is not None:
            reason = f"The first canvases differ, first at position {position}."
            return Finding("INPUT", reason, sequence=index, position=position)
    return None


def _weights(golden: Baseline, observed: Baseline) -> Finding | None:
    if not _both_known_and_different("weights", golden.model, observed.model):
        return None
    return Finding("WEIGHTS", "The models' weights differ: their digests are not the same.")


def _both_known_and_different(field: str, golden: ModelIdentity | None, observed: ModelIdentity | None) -> bool:
    one, other = getattr(golden, field, None), getattr(observed, field, None)
    return one is not None and other is not None and one != other
