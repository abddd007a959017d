"""pytest-xdist: which device a worker uses, and keeping the tests of one model on one worker."""

from __future__ import annotations

import pytest

from pytest_difftrace.marker import ModelRequest, requested_model
from pytest_difftrace.options import Settings


def worker_index(config: pytest.Config) -> int | None:
    """Return 3 in worker `gw3`, None outside xdist."""
    name: str = getattr(config, "workerinput", {}).get("workerid", "")
    digits = name.removeprefix("gw")
    return int(digits) if digits.isdigit() else None


def default_device(model: str | None, profile: str | None) -> str:
    """Return "cpu" or "auto" for a test that names no device.

    The embedded model is for the CPU, unless the profile that was asked for is one of other devices.
    """
    from difftrace.determinism.profiles import CPU, PORTABLE

    return "cpu" if model is None and profile in (None, CPU, PORTABLE) else "auto"


def device_of_worker(asked: str, worker: int | None, kind: str | None, count: int) -> str:
    """Return the device that worker number `worker` uses of `count` accelerators of type `kind` ("cuda").

    Worker i takes device i mod count where the accelerator was asked for without an index, by name or as "auto".
    Everything else is as asked.
    """
    if worker is None or kind is None or count < 1 or asked not in ("auto", kind):
        return asked
    return f"{kind}:{worker % count}"


def group_by_model(items: list[pytest.Item], settings: Settings) -> None:
    """Give the tests of each model an xdist group.

    The embedded model is quick to load and needs none; a group that the user gave stays.
    """
    for item in items:
        if "llada" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("xdist_group"):
            continue
        try:
            request = requested_model(item, settings)
        except pytest.UsageError:
            continue  # the fixture reports it, with the test's name
        if request.model is not None:
            item.add_marker(pytest.mark.xdist_group(_group(request)))


def _group(request: ModelRequest) -> str:
    import hashlib  # loads OpenSSL, a millisecond or two that sessions without groups need not pay

    # xdist splits the group from the test's id at "@" and compares with "]"; hex digits hold neither.
    return f"difftrace-{hashlib.sha256(repr(request).encode()).hexdigest()[:8]}"
