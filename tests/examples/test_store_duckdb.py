"""The worked example with DuckDB finds what it was made to find."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "store_duckdb.py"


def test_the_run_that_went_wrong_is_found_and_taken_back(tmp_path):
    pytest.importorskip("pyarrow", reason='needs pyarrow (pip install "pytest-difftrace[parquet]")')
    pytest.importorskip("duckdb", reason="needs DuckDB (dependency group dev)")
    command = [sys.executable, str(EXAMPLE), "--trajectories", "4400", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "LLaDA-8B-Instruct 2200 64.0 281600" in done.stdout
    assert "request-0321 3 2" in done.stdout
    assert re.search(r"LLaDA-1.5/0004321: step 4[0-9], position \d+: token \d+ where it usually is \d+", done.stdout)
    assert "3 answers, all verified" in done.stdout
