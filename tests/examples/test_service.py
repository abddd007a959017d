"""The example of a service answers, stores, replays and verifies what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from difftrace.store import Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "service.py"
PAGE = Path(__file__).parents[2] / "docs" / "services.md"


def test_every_request_of_the_service_is_stored_replayed_and_verified(tmp_path):
    pytest.importorskip("torch")
    command = [sys.executable, str(EXAMPLE), "--requests", "9", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"chat/[0-9a-f-]{36}: 10 \+ 30 = 4[0-9]", done.stdout)
    assert "replayed 9, exact 9" in done.stdout
    assert len(re.findall(r"verified chat/\S+: the same decisions", done.stdout)) == 2
    assert "chat/wrong: the events do not lead to the stored output" in done.stdout
    assert "stored 10, problems 0" in done.stdout
    with Store(tmp_path / "requests.difftrace", read_only=True) as store:
        assert {entry.num_steps for entry in store.entries()} == {16}


def test_a_service_without_requests_is_refused():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--requests", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'0' is no whole number of at least 1" in done.stderr


def test_the_code_of_the_page_about_services_is_valid():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, str(PAGE), "exec")
