"""Adapters by name: this package's own, and those that other distributions bring as entry points."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from difftrace.capture.adapter import Adapter, LoopAdapter
from difftrace.core.errors import CaptureError

GROUP: Final = "difftrace.adapters"

# Each module holds its adapter as ADAPTER. In the order in which engine="auto" asks them.
_OWN: Final = {
    name: f"difftrace.capture.adapters.{name}"
    for name in (
        "fast_dllm",
        "llada",
        "dream",
        "dllm",
        "dinfer",
        "sglang",
        "vllm",
        "diffusion_gemma",
        "causal",
        "generic",
        "steps",
    )
}

_NEEDED: Final = tuple(
    name for name in (*vars(LoopAdapter), "name") if not name.startswith("_") and name not in ("ids",)
)


def adapter_for(target: Any, engine: str | Adapter) -> Adapter:
    """Return the adapter called `engine`, or for "auto" the first that matches `target`; an adapter is itself.

    Those of other distributions are asked before this package's.

    Raises:
        CaptureError: there is none of that name, or one that has to be asked cannot be loaded or fails.
    """
    if not isinstance(engine, str):
        return _checked(engine, f"engine={engine!r:.80}")
    if engine != "auto":
        return _named(engine)
    return next(adapter for adapter in _all() if _matches(adapter, target))


def names() -> list[str]:
    """Return the names of all adapters that are installed."""
    return sorted({*_OWN, *(point.name for point in _points())})


@lru_cache(maxsize=1)
def _points() -> tuple[EntryPoint, ...]:
    """Return the entry points of what is installed; finding them takes milliseconds."""
    return tuple(entry_points(group=GROUP))


def _matches(adapter: Adapter, target: Any) -> bool:
    try:
        return adapter.matches(target)
    except Exception as error:
        raise CaptureError(
            f"the adapter {adapter.name!r} ({type(adapter).__module__}) fails when asked whether a "
            f"{type(target).__name__} is its engine's, {type(error).__name__}: {error}. Name the engine (engine=), or "
            "mend its matches(), which may not raise"
        ) from error


def _named(name: str) -> Adapter:
    if name in _OWN:
        return _own(name)
    for point in _points():
        if point.name == name:
            return _loaded(point)
    raise CaptureError(f"there is no engine {name!r}: it must be auto, {', '.join(names())}")


def _all() -> Iterator[Adapter]:
    for point in _points():
        if point.name not in _OWN:
            yield _loaded(point)
    yield from map(_own, _OWN)


def _own(name: str) -> Adapter:
    adapter: Adapter = import_module(_OWN[name]).ADAPTER
    return adapter


def _loaded(point: EntryPoint) -> Adapter:
    whose = f"the adapter {point.name!r} ({point.value}, entry point of {GROUP})"
    try:
        found = point.load()
    except Exception as error:
        raise CaptureError(f"{whose} cannot be loaded: {type(error).__name__}: {error}") from error
    return _checked(found() if isinstance(found, type) else found, whose)


def _checked(adapter: Any, whose: str) -> Adapter:
    missing = [name for name in _NEEDED if not hasattr(adapter, name)]
    if missing or isinstance(adapter, type):
        what = f"lacks {', '.join(missing)}" if missing else "is a class, not an adapter"
        raise CaptureError(f"{whose} {what}: derive it from difftrace.capture.LoopAdapter")
    found: Adapter = adapter
    return found
