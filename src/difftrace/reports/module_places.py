"""A place in a forward pass as words: a module, a call of it, a part of what it computes."""

from __future__ import annotations

from difftrace.core.module_difference import Point
from difftrace.core.text import printable


def place(module: str, class_name: str, ordinal: int, after: Point | None, before: Point | None) -> str:
    """Return "blocks.3 (Block) itself,\\nbetween v_proj's output and attn_out's input", as far as that is given."""
    name = f"{printable(module) or 'the model'} ({printable(class_name)})"
    if ordinal:
        name += f", call {ordinal + 1} of it"
    if after is None or before is None:
        return name
    return f"{name} itself,\nbetween {point_text(after, module)} and {point_text(before, module)}"


def point_text(point: Point, around: str) -> str:
    """Return "v_proj's output", the module named as seen from the module `around`."""
    if point.module == around:
        return f"its {point.moment}"
    return f"{printable(within(point.module, around)) or 'the model'}'s {point.moment}"


def within(name: str, around: str) -> str:
    """Return a dotted name as seen from the module `around`."""
    return name.removeprefix(f"{around}.")
