"""What a person does next with failed checks: the commands that show, accept and record their runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pytest

from pytest_difftrace.session import SESSION

_PREFIX: Final = "difftrace: "
_MOST_TESTS: Final = 3
_MOST_SHOWN: Final = 20
_RECORDABLE: Final = ("diverged", "without baseline", "unreadable")


def step_lines(config: pytest.Config) -> list[str]:
    """Return the classes of what failed, at most three commands (with -v one to see each), and where the page is.

    Nothing if no check failed. The commands are to be run where pytest was started; -q leaves them out.
    """
    checks = [entry["check"] for entry in config.stash[SESSION].entries.values()]
    failed = [check for check in checks if check["status"] in _RECORDABLE]
    if not failed or config.get_verbosity() < -1:
        return []
    from difftrace.core.classes import CANNOT_TELL

    counts = Counter(check["class"] or CANNOT_TELL for check in failed if check["status"] == "diverged")
    classes = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    lines = [f"{_PREFIX}diverged by class: {classes}"] if classes else []
    if config.get_verbosity() < 0:
        return lines
    newer = sum(map(_is_newer, failed))
    if newer:
        what = (
            "1 baseline was written by a newer one" if newer == 1 else f"{newer} baselines were written by a newer one"
        )
        lines.append(f"{_PREFIX}to update: pytest-difftrace, since {what}")
    shown = [words for check in failed if (words := _see(check, config)) is not None]
    most = _MOST_SHOWN if config.get_verbosity() > 0 else 1
    lines += [f"{_PREFIX}to see:    {words}" for words in shown[:most]]
    if len(shown) > most:
        lines[-1] += f"  (and {len(shown) - most} more)"
    lasting = [check for check in failed if check["class"] != "RUN_TO_RUN" and not _is_newer(check)]
    accept = accept_command(config)
    if accept is not None:
        lines.append(f"{_PREFIX}to accept: {accept}")
    if lasting:
        lines.append(f"{_PREFIX}to record: {_record(lasting, config)}")
    page = config.stash[SESSION].settings.html
    if page is not None:
        from pytest_difftrace.checks import relative

        lines.append(f"{_PREFIX}the page:  {relative(page, config)}")
    return lines


def accept_command(config: pytest.Config, folder: str | None = None) -> str | None:
    """Return the command that accepts the received runs; None where there are none to accept.

    `folder` is where they will be by then, by default the results folder.

    It names those without baseline where there are no others: they ran once, and recording them is the better way.
    There is none while a baseline is of a newer version either: accepting refuses to overwrite it, and then all.
    """
    from pytest_difftrace.checks import relative
    from pytest_difftrace.messages import command_line

    session = config.stash[SESSION]
    checks = [entry["check"] for entry in session.entries.values()]
    statuses = {check["status"] for check in checks if check["received"] and check["class"] != "RUN_TO_RUN"}
    if session.results is None or not statuses or any(map(_is_newer, checks)):
        return None
    new = ["--new"] if statuses == {"without baseline"} else []
    return command_line(["difftrace", "accept", folder or relative(session.results, config), *new])


def _is_newer(check: dict[str, Any]) -> bool:
    """Return whether the check's baseline is of a newer version: it cannot be read, yet is not INVALID."""
    return bool(check["status"] == "unreadable" and check["class"] is None)


def _see(check: dict[str, Any], config: pytest.Config) -> str | None:
    from pytest_difftrace.checks import relative
    from pytest_difftrace.messages import command_line

    results, received = config.stash[SESSION].results, check["received"]
    if results is None or received is None:
        return None
    file = relative(results / received["path"], config)
    if check["status"] != "diverged":
        return command_line(["difftrace", "show", file])
    return command_line(["difftrace", "diff", relative(config.rootpath / check["baseline"]["path"], config), file])


def _record(checks: Sequence[dict[str, Any]], config: pytest.Config) -> str:
    from pytest_difftrace.checks import relative
    from pytest_difftrace.messages import command_line, record_words

    tests = list(dict.fromkeys((check["module"], check["nodeid"]) for check in checks))
    modules = list(dict.fromkeys(module for module, _ in tests))
    named: list[str] = []
    if len(tests) <= _MOST_TESTS:
        named = [
            relative(config.rootpath / module, config) + "".join(nodeid.partition("::")[1:]) for module, nodeid in tests
        ]
    elif len(modules) <= _MOST_TESTS:
        named = [relative(config.rootpath / module, config) for module in modules]
    return command_line([*record_words(config), *named])
