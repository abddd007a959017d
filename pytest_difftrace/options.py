"""What was asked for on the command line and in the ini file, as one value."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import pytest

from pytest_difftrace import foreign, step_sampling
from pytest_difftrace.step_sampling import Sampling

Mode = Literal["off", "verify", "record"]
Scope = Literal["missing", "changed", "all"]
# Those of difftrace.core.policies, which is too much to import here.
Policy = Literal["exact", "near-tie", "tokens", "text"]

# How a run of the llada fixture is held against its baseline.
Strategy = Literal["rerun", "forced", "sampled"]

SCOPES: Final = ("missing", "changed", "all")
POLICIES: Final = get_args(Policy)
STRATEGIES: Final = get_args(Strategy)
_RECORD: Final = "--difftrace-record"

_PLATFORM_KEY: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_LONGEST_PLATFORM_KEY: Final = 40

_EXCEPTIONS: Final = ("difftrace_fail_on", "difftrace_allow")

# With these pytest only tells something and runs no test.
_TELLING: Final = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow")


@dataclass(frozen=True)
class Settings:
    """What this session does.

    Attributes:
        mode: what a check does.
        scope: which baselines a recording may write.
        policy: which differences fail.
        model: model of the `llada` fixture where the test's marker names none; None is the embedded reference model.
        model_folder: where a relative path in `model` starts.
        per_platform: record into the file of this platform instead of the shared one.
        explicit: a flag asked for the mode, so the header states it.
        profile: determinism profile of the `llada` fixture; None is the one of the device.
        platform_key: what this platform is called; None is what the fingerprint says.
        fail_on: classes of divergence that fail under any policy.
        allow: those that pass under any.
        bisect: look for the module at fault where a check fails.
        strategy: whether runs of the `llada` fixture are denoised for their check or their baselines' canvases scored.
        sampling: which steps the strategy "sampled" checks.
        report: the report file that was asked for.
        html: the page that was asked for.
        results: the results folder.
        results_confined: the ini file or nobody named that folder, so that it has to be in the root folder.
    """

    mode: Mode
    scope: Scope
    policy: Policy
    model: str | None
    model_folder: Path
    per_platform: bool
    explicit: bool
    profile: str | None = None
    platform_key: str | None = None
    fail_on: frozenset[str] = frozenset()
    allow: frozenset[str] = frozenset()
    bisect: bool = False
    strategy: Strategy = "rerun"
    sampling: Sampling = step_sampling.USUAL
    report: Path | None = None
    html: Path | None = None
    results: Path = Path(".difftrace")
    results_confined: bool = True


class _RecordAction(argparse.Action):
    """Takes the scope from the option string itself, so that the flag never swallows the argument after it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (option_string or "").partition("=")[2] or "changed")


def add_options(parser: pytest.Parser) -> None:
    """Register the options and their ini counterparts."""
    group = parser.getgroup("difftrace", "DiffTrace: golden trajectories of diffusion language models")
    group.addoption(
        _RECORD,
        *(f"{_RECORD}={scope}" for scope in SCOPES),
        action=_RecordAction,
        nargs=0,
        default=None,
        dest="difftrace_record",
        help="Record baselines: absent ones (missing), also those that fail (changed, the bare flag), or all.",
    )
    group.addoption(
        "--difftrace-verify",
        action="store_true",
        dest="difftrace_verify",
        help="Verify against the baselines, also where the ini file says difftrace_mode = off.",
    )
    group.addoption(
        "--difftrace-policy",
        choices=POLICIES,
        default=None,
        dest="difftrace_policy",
        help="Which differences fail: any but drift within the budget (exact), any but that and close decisions"
        " (near-tie), other final tokens (tokens), another final text (text).",
    )
    for name, what in (("fail-on", "fail"), ("allow", "pass")):
        group.addoption(
            f"--difftrace-{name}",
            metavar="CLASS[,CLASS]",
            action="append",
            default=[],
            dest=f"difftrace_{name.replace('-', '_')}",
            help=f"Classes of divergence that {what} under any policy, such as NEAR_TIE; can be repeated.",
        )
    group.addoption(
        "--difftrace-strategy",
        choices=STRATEGIES,
        default=None,
        dest="difftrace_strategy",
        help="How runs of the llada fixture are verified: by denoising them (rerun), or by scoring all canvases of the"
        " baseline (forced) or some (sampled), which holds logits to the budget, not to bits.",
    )
    step_sampling.add_options(group, parser)
    group.addoption(
        "--difftrace-bisect",
        action="store_true",
        dest="difftrace_bisect",
        help="Where a run of the llada fixture fails, run its model twice on the canvas in question and name the first"
        " module that does not repeat itself.",
    )
    group.addoption(
        "--difftrace-model",
        metavar="PATH_OR_ID",
        default=None,
        dest="difftrace_model",
        help="Model of the llada fixture: a folder, or owner/name@commit of the hub (default: the embedded reference"
        " model).",
    )
    group.addoption(
        "--difftrace-profile",
        metavar="NAME",
        default=None,
        dest="difftrace_profile",
        help="Determinism profile of the llada fixture, such as cpu-portable (default: that of the device).",
    )
    group.addoption(
        "--difftrace-platform-key",
        metavar="KEY",
        default=None,
        dest="difftrace_platform_key",
        help="What this platform is called in names of baselines and in what they record (default: by the device).",
    )
    group.addoption(
        "--difftrace-report",
        metavar="FILE.json",
        default=None,
        dest="difftrace_report",
        help="Write what became of every check to this file, as JSON.",
    )
    group.addoption(
        "--difftrace-html",
        metavar="FILE",
        default=None,
        dest="difftrace_html",
        help="Write a page that shows every check, with golden and observed runs side by side, to this file.",
    )
    group.addoption(
        "--difftrace-results",
        metavar="DIR",
        default=None,
        dest="difftrace_results",
        help="Where the runs of failed checks go, with a report of them, for difftrace diff and difftrace accept"
        " (default: .difftrace in the root folder).",
    )
    # No default, so that it can be told whether the file asks for the mode.
    parser.addini("difftrace_mode", "verify (default) or off", default="")
    parser.addini("difftrace_policy", "exact (default), near-tie, tokens or text", default="exact")
    parser.addini("difftrace_fail_on", "classes of divergence that fail under any policy", type="linelist", default=[])
    parser.addini("difftrace_allow", "classes of divergence that pass under any policy", type="linelist", default=[])
    parser.addini("difftrace_strategy", "rerun (default), forced or sampled", default="rerun")
    parser.addini("difftrace_bisect", "look for the module at fault where a check fails", type="bool", default=False)
    parser.addini("difftrace_model", "model folder or hub id of the llada fixture", default="")
    parser.addini("difftrace_profile", "determinism profile of the llada fixture", default="")
    parser.addini("difftrace_platform_key", "what this platform is called", default="")
    parser.addini("difftrace_html", "page that shows every check, seen from the ini file's folder", default="")
    parser.addini("difftrace_results", "results folder, inside the root folder (.difftrace)", default=".difftrace")
    parser.addini("difftrace_per_platform", "record one baseline per platform", type="bool", default=False)


def refuse_unknown_scope(arguments: Sequence[str]) -> None:
    """Raise a usage error for `--difftrace-record=sometimes`, of which argparse would only say that it ignores it."""
    for argument in arguments:
        if argument == "--":
            return
        name, equals, scope = argument.partition("=")
        if name == _RECORD and equals and scope not in SCOPES:
            raise pytest.UsageError(
                f"{_RECORD}={scope}: it takes {_RECORD}={'|'.join(SCOPES)}, or nothing, which means changed"
            )


def asks_for_mode(config: pytest.Config) -> bool:
    """Return whether the command line or the ini file asks for recording or verifying; no conftest file is needed."""
    given = config.known_args_namespace
    if any(getattr(given, name, False) for name in _TELLING):
        return False
    return bool(given.difftrace_record or given.difftrace_verify or config.getini("difftrace_mode") == "verify")


def profile(config: pytest.Config, given: argparse.Namespace) -> str | None:
    """Return the determinism profile that `given` or the ini file names, None if neither does.

    Raises pytest.UsageError for one that there is not.
    """
    name: str | None = given.difftrace_profile or config.getini("difftrace_profile") or None
    if name is None:
        return None
    foreign.refuse()
    from difftrace.determinism.profiles import PROFILES

    if name not in PROFILES:
        raise pytest.UsageError(f"there is no determinism profile {name!r}: choose {', '.join(PROFILES)}")
    return name


def resolve(config: pytest.Config) -> Settings:
    """Return the session's settings; raises pytest.UsageError where they contradict each other."""
    record: Scope | None = config.getoption("difftrace_record")
    verify: bool = config.getoption("difftrace_verify")
    if record and verify:
        raise pytest.UsageError(f"{_RECORD} and --difftrace-verify exclude each other; give one of them")
    ini_mode: Mode = (
        _one_of(config, "difftrace_mode", ("off", "verify")) if config.getini("difftrace_mode") else "verify"
    )
    ini_policy = _one_of(config, "difftrace_policy", POLICIES)
    ini_strategy = _one_of(config, "difftrace_strategy", STRATEGIES)
    strategy: Strategy = config.getoption("difftrace_strategy") or ini_strategy
    fail_on, allow = _exceptions(config)
    asked_model: str | None = config.getoption("difftrace_model")
    ini_folder = config.inipath.parent if config.inipath else config.rootpath
    started: Path = config.invocation_params.dir
    report: str | None = config.getoption("difftrace_report")
    results: str | None = config.getoption("difftrace_results")
    return Settings(
        mode="record" if record else "verify" if verify else ini_mode,
        scope=record or "changed",
        policy=config.getoption("difftrace_policy") or ini_policy,
        model=asked_model or config.getini("difftrace_model") or None,
        model_folder=started if asked_model else ini_folder,
        per_platform=config.getini("difftrace_per_platform"),
        explicit=bool(record or verify),
        profile=profile(config, config.option),
        platform_key=_platform_key(config),
        fail_on=fail_on,
        allow=allow,
        bisect=config.getoption("difftrace_bisect") or config.getini("difftrace_bisect"),
        strategy=strategy,
        sampling=step_sampling.resolve(config, strategy),
        report=started / report if report else None,
        html=_html(config, ini_folder),
        results=started / results if results else ini_folder / config.getini("difftrace_results"),
        results_confined=not results,
    )


def _exceptions(config: pytest.Config) -> tuple[frozenset[str], frozenset[str]]:
    """Return the classes that fail and those that pass; the command line overrules the ini file class by class."""
    given = {name: _listed(config.getoption(name)) for name in _EXCEPTIONS}
    ini = {name: _listed(config.getini(name)) for name in _EXCEPTIONS}
    if not any((*given.values(), *ini.values())):
        return frozenset(), frozenset()
    foreign.refuse()
    from difftrace.core.policies import exceptions

    found = []
    for where, asked in (
        ("--difftrace-fail-on, --difftrace-allow", given),
        ("difftrace_fail_on, difftrace_allow", ini),
    ):
        try:
            found.append(exceptions(asked["difftrace_fail_on"], asked["difftrace_allow"]))
        except ValueError as error:
            raise pytest.UsageError(f"{where}: {error}") from None
    (failing, allowed), (ini_failing, ini_allowed) = found
    return failing | (ini_failing - allowed), allowed | (ini_allowed - failing)


def _listed(values: Sequence[str]) -> list[str]:
    return [name for value in values for name in re.split(r"[\s,]+", value) if name]


def _html(config: pytest.Config, ini_folder: Path) -> Path | None:
    given: str | None = config.getoption("difftrace_html")
    ini: str = config.getini("difftrace_html")
    if given:
        return config.invocation_params.dir / given
    if not ini:
        return None
    page = ini_folder / ini
    if not page.resolve().is_relative_to(config.rootpath.resolve()):
        raise pytest.UsageError(
            f"ini option difftrace_html = {ini!r}: leads out of the root folder; name it on the command line,"
            " --difftrace-html=FILE, if it is meant"
        )
    return page


def _platform_key(config: pytest.Config) -> str | None:
    key: str = config.getoption("difftrace_platform_key") or config.getini("difftrace_platform_key")
    if not key:
        return None
    if _PLATFORM_KEY.fullmatch(key) is None or len(key) > _LONGEST_PLATFORM_KEY:
        raise pytest.UsageError(
            f"platform key {key!r}: it takes at most {_LONGEST_PLATFORM_KEY} lower-case letters, digits, '-', '_'"
            " and single dots between them"
        )
    return key


def _one_of(config: pytest.Config, name: str, allowed: tuple[str, ...]) -> Any:
    value = config.getini(name)
    if value not in allowed:
        raise pytest.UsageError(f"ini option {name} = {value!r}: it takes {', '.join(allowed[:-1])} or {allowed[-1]}")
    return value
