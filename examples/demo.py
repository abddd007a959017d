"""`make demo`: the main job on the embedded model, then a divergence on purpose.

Exits with 0 only if the quickstart verifies and the broken kernel is caught.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

QUICKSTART = Path(__file__).resolve().parent / "quickstart"
OK, TESTS_FAILED = 0, 1


def pytest(*arguments: str) -> int:
    """Run pytest in the quickstart as a person would, and return its exit status."""
    print(f"$ pytest {' '.join(arguments)}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(QUICKSTART)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=QUICKSTART, env=environment, check=False).returncode


def main() -> int:
    """Run both halves of the demonstration."""
    print("== 1. The quickstart's baselines, verified on this machine\n", flush=True)
    if pytest("--difftrace-verify") != OK:
        print("\nThe quickstart does not verify here; please report what stands above.")
        return 1
    print("\n== 2. The same test with a broken kernel: GELU where SiLU should be\n", flush=True)
    if pytest("-p", "broken_kernel", "--difftrace-verify", "test_quickstart.py::test_sum") != TESTS_FAILED:
        print("\nThe broken kernel was not caught; please report what stands above.")
        return 1
    print("\n== That failure was meant. The text is still right; the step, position and tokens above tell what is not.")
    print("   Next: read examples/quickstart/test_quickstart.py, then README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
