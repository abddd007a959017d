"""The action's inputs, which arrive in the environment, as one checked value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from difftrace.core.text import printable
from difftrace.determinism.profiles import PROFILES
from pytest_difftrace.github.errors import ActionError

PREFIX: Final = "DIFFTRACE_INPUT_"

MODES: Final = ("verify", "record")
INSTALLS: Final = ("auto", "none")
# Those of pytest_difftrace.options, which needs pytest; inputs are checked before that is installed.
POLICIES: Final = ("exact", "near-tie", "tokens", "text")
STRATEGIES: Final = ("rerun", "forced", "sampled")
# Those of difftrace.core.classes, which needs numpy, but for runs without a difference.
CLASSES: Final = (
    *("INVALID", "INPUT", "CONFIG", "WEIGHTS", "NON_FINITE", "RUN_TO_RUN", "TIE_BREAK", "RNG", "LOGIC", "NEAR_TIE"),
    *("NUMERIC", "DRIFT", "LENGTH"),
)

_PLATFORM_KEY: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_LONGEST_PLATFORM_KEY: Final = 40
# What upload-artifact refuses in a name.
_NOT_IN_ARTIFACT_NAME: Final = re.compile(r'["<>|*?:\\/\x00-\x1f]')
_RESULTS_OPTION: Final = "--difftrace-results"
_REVISION: Final = re.compile(r"[0-9a-f]{40}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Inputs:
    """What the workflow asked for; an empty text stands for "as the project's pytest settings say".

    Attributes:
        mode: "verify" or "record".
        paths: what pytest is given to run; empty for what its settings name.
        pytest_args: further arguments of pytest.
        model: folder or `owner/name@commit`.
        policy: which differences fail.
        strategy: how runs are verified.
        fail_on: classes that fail under any policy.
        platform_key: what this platform is called.
        profile: determinism profile.
        python: the interpreter that the tests' own requirements are installed for.
        install: "auto" or "none".
        results_dir: results folder, seen from the workspace.
        upload_artifact: whether the results folder is uploaded.
        artifact_name: what it is called then.
        fail_on_divergence: whether the step fails where runs diverge.
        summary: whether the job's summary is written.
    """

    mode: str
    paths: tuple[str, ...]
    pytest_args: tuple[str, ...]
    model: str
    policy: str
    strategy: str
    fail_on: str
    platform_key: str
    profile: str
    python: str
    install: str
    results_dir: str
    upload_artifact: bool
    artifact_name: str
    fail_on_divergence: bool
    summary: bool

    @property
    def hub_model(self) -> tuple[str, str] | None:
        """Id and commit of the model, None where it is a folder or not given."""
        name, at, revision = self.model.rpartition("@")
        return (name, revision) if at and _HUB_ID.fullmatch(name) and _REVISION.fullmatch(revision) else None


def parse(environment: Mapping[str, str]) -> Inputs:
    """Return the inputs in `environment`.

    Raises:
        ActionError: with one message for each input that is not understood.
    """
    reader = _Reader(environment)
    inputs = Inputs(
        mode=reader.one_of("mode", MODES),
        paths=reader.paths("paths"),
        pytest_args=reader.words("pytest-args"),
        model=reader.model("model"),
        policy=reader.one_of("policy", POLICIES, optional=True),
        strategy=reader.one_of("strategy", STRATEGIES, optional=True),
        fail_on=reader.classes("fail-on"),
        platform_key=reader.matching(
            "platform-key",
            _PLATFORM_KEY,
            f"at most {_LONGEST_PLATFORM_KEY} lower-case letters, digits, '-', '_' and single dots between them",
            longest=_LONGEST_PLATFORM_KEY,
        ),
        profile=reader.one_of("profile", tuple(PROFILES), optional=True),
        python=reader.line("python"),
        install=reader.one_of("install", INSTALLS),
        results_dir=reader.line("results-dir"),
        upload_artifact=reader.flag("upload-artifact"),
        artifact_name=reader.artifact_name("artifact-name"),
        fail_on_divergence=reader.flag("fail-on-divergence"),
        summary=reader.flag("summary"),
    )
    if reader.problems:
        raise ActionError(*reader.problems)
    return inputs


class _Reader:
    """Reads inputs by name and collects what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def line(self, name: str) -> str:
        value = self._raw(name)
        if "\n" in value or "\r" in value or "\0" in value:
            self._refuse(name, value, "one line")
            return ""
        return value

    def one_of(self, name: str, known: tuple[str, ...], *, optional: bool = False) -> str:
        value = self._raw(name)
        if value not in known and (value or not optional):
            self._refuse(name, value, f"{', '.join(known[:-1])} or {known[-1]}")
        return value

    def flag(self, name: str) -> bool:
        return self.one_of(name, ("true", "false")) == "true"

    def matching(self, name: str, pattern: re.Pattern[str], takes: str, *, longest: int = 1000) -> str:
        value = self._raw(name)
        if value and (pattern.fullmatch(value) is None or len(value) > longest):
            self._refuse(name, value, takes)
        return value

    def classes(self, name: str) -> str:
        value = self._raw(name)
        unknown = [one for one in value.replace(",", " ").split() if one not in CLASSES]
        if unknown or (value and not value.replace(",", " ").split()):
            self._refuse(name, unknown[0] if unknown else value, f"some of {', '.join(CLASSES)}, separated by commas")
        return value

    def paths(self, name: str) -> tuple[str, ...]:
        lines = tuple(line.strip() for line in self._raw(name).splitlines() if line.strip())
        for line in lines:
            if line.startswith("-"):
                self._refuse(name, line, "files, folders and test ids, one a line; options belong to pytest-args")
        return lines

    def words(self, name: str) -> tuple[str, ...]:
        value = self._raw(name)
        try:
            words = tuple(shlex.split(value))
        except ValueError as error:
            self._refuse(name, value, f"words quoted as for a shell ({error})")
            return ()
        for word in words:
            if word.partition("=")[0] == _RESULTS_OPTION:
                self._refuse(name, word, f"arguments without {_RESULTS_OPTION}: give the input results-dir")
        return words

    def model(self, name: str) -> str:
        value = self.line(name)
        model, at, revision = value.rpartition("@")
        if at and _HUB_ID.fullmatch(model) and not _REVISION.fullmatch(revision):
            self._refuse(name, value, "a folder, or owner/name@ and the full 40-hex commit: branches and tags move")
        return value

    def artifact_name(self, name: str) -> str:
        value = self.line(name)
        if not value or _NOT_IN_ARTIFACT_NAME.search(value):
            self._refuse(name, value, 'a name without any of " < > | * ? : \\ /')
        return value

    def _raw(self, name: str) -> str:
        return self._environment.get(PREFIX + name.upper().replace("-", "_"), "").strip()

    def _refuse(self, name: str, value: str, takes: str) -> None:
        shown = printable(value if len(value) <= 80 else f"{value[:79]}…")
        self.problems.append(
            f"input {name}: it takes {takes}, not {shown!r}" if value else f"input {name}: it takes {takes}"
        )
