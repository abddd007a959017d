"""`difftrace upgrade`: older baselines become current ones, and nothing else happens to any file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace.core.baseline import load
from difftrace.core.baseline_json import VERSION
from difftrace.core.schemas import violation

Command = Callable[..., tuple[int, str, str]]

NOW = ".".join(map(str, VERSION))
OLD = Path(__file__).parents[1] / "core/fixtures/baseline-0.1.json"
CURRENT = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart/test_sum.json"


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A folder of tests with a baseline of an older version, one of the current and a file of something else."""
    folder = tmp_path / "__difftrace__" / "test_sum"
    folder.mkdir(parents=True)
    shutil.copy(OLD, folder / "old.json")
    shutil.copy(CURRENT, folder / "current.json")
    (tmp_path / "package.json").write_text('{"version": "0.1"}')
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_check_finds_older_versions_and_writes_nothing(difftrace: Command, tests: Path) -> None:
    before = contents(tests)
    status, out, err = difftrace("upgrade", "--check", tests)
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        f"{tests}/__difftrace__/test_sum/old.json: older",
        "2 checked, 1 of an older version, 0 invalid",
    ]
    assert contents(tests) == before


def test_older_versions_are_rewritten_once(difftrace: Command, tests: Path) -> None:
    before = contents(tests)
    golden = load(OLD)
    status, out, _ = difftrace("upgrade", tests)
    assert status == 0
    assert out.splitlines()[-1] == f"2 checked, 1 upgraded to {NOW}, 0 invalid"
    after = contents(tests)
    changed = {name for name in before if before[name] != after[name]}
    assert (changed, set(after)) == ({str(Path("__difftrace__/test_sum/old.json"))}, set(before))
    path = tests / "__difftrace__/test_sum/old.json"
    assert load(path) == golden
    # Every field but the version is as it was.
    assert {**json.loads(OLD.read_bytes()), "version": f"{NOW}"} == json.loads(path.read_bytes())
    assert difftrace("upgrade", "--check", tests)[0] == 0
    assert difftrace("upgrade", tests)[1].splitlines() == [f"2 checked, 0 upgraded to {NOW}, 0 invalid"]
    assert contents(tests) == after


def test_a_link_stays_a_link(difftrace: Command, tests: Path) -> None:
    link = tests / "link.json"
    link.symlink_to(tests / "__difftrace__/test_sum/old.json")
    assert difftrace("upgrade", link)[0] == 0
    assert link.is_symlink()
    assert json.loads(link.read_bytes())["version"] == NOW


def test_what_is_invalid_is_left_alone_and_does_not_stop_the_others(difftrace: Command, tests: Path) -> None:
    broken = tests / "__difftrace__/test_sum/broken.json"
    broken.write_bytes(OLD.read_bytes()[:-20])
    newer = tests / "__difftrace__/test_sum/newer.json"
    newer.write_bytes(OLD.read_bytes().replace(b'"0.1"', b'"9.0"'))
    before = contents(tests)
    status, out, _ = difftrace("upgrade", tests, "--json")
    found = json.loads(out)
    assert violation("upgrade", found) is None
    assert status == 1
    assert set(found["problems"]) == {str(broken), str(newer)}
    assert (found["checked"], len(found["older"]), found["written"]) == (4, 1, True)
    for path in (broken, newer):
        assert path.read_bytes() == before[str(path.relative_to(tests))]


def test_what_cannot_be_read_is_told_and_does_not_stop_the_others(difftrace: Command, tests: Path) -> None:
    folder = tests / "__difftrace__/test_sum"
    dangling = folder / "0.json"
    dangling.symlink_to(folder / "nowhere")
    status, out, _ = difftrace("upgrade", tests, "--json")
    found = json.loads(out)
    assert (status, list(found["problems"]), len(found["older"])) == (1, [str(dangling)], 1)
    assert "cannot be read" in found["problems"][str(dangling)]


def test_a_folder_without_baselines_is_no_success(difftrace: Command, tmp_path: Path) -> None:
    status, out, err = difftrace("upgrade", tmp_path)
    assert (status, out) == (2, "")
    assert "nothing to upgrade" in err


def test_what_cannot_be_written_is_a_2(difftrace: Command, tests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    before = contents(tests)
    monkeypatch.setattr(Path, "replace", replace)
    status, _, err = difftrace("upgrade", tests)
    assert status == 2
    assert "free space on its disk" in err
    assert contents(tests) == before
