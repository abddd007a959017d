"""What a loop drew at random and where its selections were tied, as lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from difftrace.core.audit import Audit, Draw, Selection
from difftrace.reports.columns import wrapped
from difftrace.reports.scored import ranges

_MOST_STEPS = 12
_MOST_DRAWS = 12

_ADVICE = (
    "which of equal numbers topk, or a sort that is not stable, takes is left open and differs between devices and "
    "versions of torch: torch.sort(x, descending=True, stable=True) keeps their order"
)
_GENERATORS = {"global": "torch's global generator", "given": "a generator that the caller gave"}


def audit_lines(audit: Audit, *, vocabulary: int | None = None) -> list[str]:
    """Return lines of at most 100 columns: tied selections first, step by step, then draws.

    Selections among `vocabulary` elements are of tokens, others of positions.
    """
    lines = list(_of_ties(audit.selections, vocabulary))
    lines += _of_draws(audit.draws)
    lines += [f"numbers were drawn from {name}, too" for name in audit.host]
    return [
        line for text in lines or ["nothing was drawn at random, and no selection was tied"] for line in wrapped(text)
    ]


def _of_ties(selections: Iterable[Selection], vocabulary: int | None) -> Iterator[str]:
    tied = [selection for selection in selections if selection.tied]
    open_ = [selection for selection in tied if not selection.settled]
    alike: dict[tuple[object, ...], list[Selection]] = defaultdict(list)
    for selection in open_:
        alike[selection.step, selection.size, selection.operation, selection.place].append(selection)
    groups = [
        (group[0], _number(sum(one.tied for one in group), _what(group[0], vocabulary))) for group in alike.values()
    ]
    for first, number in groups[:_MOST_STEPS]:
        yield f"{_step(first.step)}: {number} tied {_at(first)} {_by(first)}"
    if len(groups) > _MOST_STEPS:
        rest = sum(one.tied for group in list(alike.values())[_MOST_STEPS:] for one in group)
        yield f"and {rest} more, up to {_step(groups[-1][0].step)}"
    if open_:
        yield _ADVICE
    for kind in dict.fromkeys(selection.operation for selection in tied if selection.settled):
        group = [selection for selection in tied if selection.settled and selection.operation == kind]
        when = _steps(selection.step for selection in group)
        yield f"ties that {kind} settles by taking the first: {sum(one.tied for one in group)}, {when}"


def _of_draws(draws: Iterable[Draw]) -> list[str]:
    alike: dict[tuple[object, ...], list[Draw]] = defaultdict(list)
    for draw in draws:
        alike[draw.operation, draw.shape, draw.dtype, draw.generator, draw.place, draw.in_model].append(draw)
    lines = [_of_alike(group) for group in list(alike.values())[:_MOST_DRAWS]]
    if len(alike) > _MOST_DRAWS:
        lines.append(f"and {len(alike) - _MOST_DRAWS} more kinds of draws")
    return lines


def _of_alike(group: list[Draw]) -> str:
    first = group[0]
    when = _steps(draw.step for draw in group)
    times = f", {len(group)} times" if len(group) > 1 else ""
    what = f"{first.operation} drew {first.dtype} {list(first.shape)} on {first.device}"
    return f"{when}: {what} from {_GENERATORS[first.generator]}{times}{_from(first)}"


def _what(selection: Selection, vocabulary: int | None) -> str:
    if selection.in_model:
        return "element"
    return "token" if selection.size == vocabulary else "position"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _at(selection: Selection) -> str:
    return "in a sort that is not stable" if selection.operation == "sort" else "at the selection boundary"


def _by(selection: Selection) -> str:
    how = f"{selection.chosen} of {selection.size}, {selection.dtype}"
    return f"({selection.operation} of {how}{_from(selection)})"


def _from(what: Draw | Selection) -> str:
    inside = ", inside the model" if what.in_model else ""
    return f", {what.place}{inside}" if what.place else inside


def _steps(found: Iterable[int]) -> str:
    steps = sorted(set(found))
    numbered = [step for step in steps if step >= 0]
    told = [_step(-1)] if steps[0] < 0 else []
    if numbered:
        told.append(f"step{'s' * (len(numbered) > 1)} {ranges(numbered)}")
    return " and ".join(told)


def _step(step: int) -> str:
    return "before the first step" if step < 0 else f"step {step}"
