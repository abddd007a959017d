"""Which module and which public function an operation was called from, read off the interpreter's stack.

Hooks would have to be put on the model, would miss a `forward` that is called directly, and cannot tell under which
of its names a shared module runs.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from pathlib import Path
from types import CodeType, FrameType

from torch import nn

from difftrace.determinism.scan_report import OUTSIDE


class ModuleNames:
    """The dotted names of a model's modules; every one of them where a module is shared.

    `root` is the model, or None for a function that calls models: names then begin with the class of the outermost
    module found on the way.
    """

    def __init__(self, root: nn.Module | None) -> None:
        self._names: dict[int, list[str]] = {}
        self._roots: list[nn.Module] = []
        if root is not None:
            self._add(root, "")

    def innermost(self, stack: list[FrameType]) -> str:
        """Return the name of the module that runs, `outside` if none does; `stack` is innermost first."""
        name: str | None = None
        for module in reversed([found for frame in stack if (found := _module(frame)) is not None]):
            if id(module) not in self._names:
                # One that the model does not know by a name is part of the one it runs in.
                if name is not None:
                    continue
                self._add(module, type(module).__name__)
            name = _nearest(self._names[id(module)], name)
        return OUTSIDE if name is None else name

    def _add(self, root: nn.Module, prefix: str) -> None:
        self._roots.append(root)  # an id means this module only as long as it lives
        for name, module in root.named_modules(prefix=prefix, remove_duplicate=False):
            self._names.setdefault(id(module), []).append(name)


def _nearest(names: list[str], around: str | None) -> str:
    """Return the first of a module's names that lies within the module it was called from, else the first."""
    if around:
        for name in names:
            if name == around or name.startswith(f"{around}."):
                return name
    return names[0]


def stack_within(outermost: CodeType | None) -> list[FrameType]:
    """Return the caller's frames, innermost first, up to the one that runs `outermost`, which is left out.

    None returns all of them.
    """
    return list(_frames(sys._getframe(1), outermost))


def _frames(frame: FrameType | None, outermost: CodeType | None) -> Iterator[FrameType]:
    while frame is not None and frame.f_code is not outermost:
        yield frame
        frame = frame.f_back


def public_function(stack: list[FrameType], names: Container[str]) -> str | None:
    """Return which function of torch.nn.functional, of those in `names`, the innermost code of torch belongs to."""
    for frame in stack:
        module = frame.f_globals.get("__name__", "")
        if module == "torch.nn.functional" and frame.f_code.co_name in names:
            return frame.f_code.co_name
        if not module.startswith(("torch.", "difftrace.determinism.")):
            return None
    return None


def in_a_forward(stack: list[FrameType]) -> bool:
    """Whether the `forward` of some module runs."""
    return any(frame.f_code.co_name == "forward" and _module(frame) is not None for frame in stack)


def place(frame: FrameType) -> str:
    """Return where a frame is, "generate.py:12 in add_noise"."""
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"


def _module(frame: FrameType) -> nn.Module | None:
    """Return the module whose method a frame runs: its first argument."""
    code = frame.f_code
    if code.co_argcount == 0:
        return None
    first = frame.f_locals.get(code.co_varnames[0])
    return first if isinstance(first, nn.Module) else None
