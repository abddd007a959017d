"""An unrelated package named difftrace in our place is said so in one line, without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_difftrace import foreign


@pytest.fixture
def foreign_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package of that name first on the path, one that breaks when it is imported."""
    package = tmp_path / "elsewhere" / "difftrace"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    for name in [name for name in sys.modules if name.partition(".")[0] == "difftrace"]:
        monkeypatch.delitem(sys.modules, name)
    return package / "__init__.py"


def test_our_own_package_is_no_problem() -> None:
    assert foreign.problem() is None


def test_our_own_package_is_known_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "difftrace")
    assert foreign.problem() is None


def test_foreign_package_is_named_with_the_remedy(foreign_package: Path) -> None:
    problem = foreign.problem()
    assert problem is not None
    assert str(foreign_package) in problem
    assert "pip uninstall difftrace" in problem
    assert "\n" not in problem


def test_foreign_package_that_is_already_imported_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "difftrace", type(sys)("difftrace"))
    assert foreign.problem() is not None


def test_explicit_mode_with_the_foreign_package_is_a_usage_error(foreign_package, run_pytest, pytester):
    pytester.makepyfile("def test_a(): pass")
    result = run_pytest("--difftrace-verify")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: difftrace: Python finds another package of that name*"])
    assert run_pytest().ret == pytest.ExitCode.OK


@pytest.mark.parametrize("fixture", ["difftrace", "llada"])
def test_fixtures_with_the_foreign_package_fail_in_one_line(foreign_package, run_pytest, pytester, fixture: str):
    pytester.makepyfile(f"def test_a({fixture}): pass")
    result = run_pytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["difftrace: Python finds another package of that name*"])
