"""Names of baselines: readable, unique by the test's own id, safe on every file system, inside their folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from difftrace.core import baseline_names
from difftrace.core.baseline_names import baseline_path, file_stem
from difftrace.core.recording import TestId
from pytest_difftrace import reporting

HASHED = re.compile(r".+~[0-9a-f]{8}")


def stem(test: str, name: str | None = None) -> str:
    return file_stem(TestId("test_x.py", test, name))


@pytest.mark.parametrize(
    ("test", "name", "expected"),
    [
        ("test_a", None, "test_a"),
        ("TestA::test_b", None, "TestA.test_b"),
        ("TestA::TestB::test_c[1-x=2.5,+y]", "second", "TestA.TestB.test_c[1-x=2.5,+y].second"),
    ],
)
def test_ordinary_ids_stay_as_they_are(test: str, name: str | None, expected: str) -> None:
    assert stem(test, name) == expected


@pytest.mark.parametrize(
    "parameter", ["a/b", "a b", "é", "a@b", "a\\b", "a:b", "\x00", "../../etc", "a[b]", "a~b", "*?"]
)
def test_replaced_characters_get_a_hash(parameter: str) -> None:
    found = stem(f"test_a[{parameter}]")
    assert HASHED.fullmatch(found)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.~\[\]-]+", found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("test_a[x/y]", None), ("test_a[x_y]", None)),
        (("test_a[x/y]", None), ("test_a[x:y]", None)),
        (("test_a[B]", None), ("test_a[b]", None)),
        (("test_A", None), ("test_a", None)),
        (("test_a", "Two"), ("test_a", "two")),
        (("test_a::test_b", None), ("test_a", "test_b")),
        (("TestA::test_b", None), ("TestA", "test_b")),
        (("TestA::TestB::test_c", None), ("TestA::TestB", "test_c")),
        (("test_a[" + "x" * 300 + "1]", None), ("test_a[" + "x" * 300 + "2]", None)),
        (("test_a[1.two]", None), ("test_a[1]", "two")),
    ],
)
def test_different_checks_have_different_files_even_where_case_does_not_count(one, other) -> None:
    assert stem(*one).lower() != stem(*other).lower()


def test_long_ids_are_cut_to_short_file_names(tmp_path: Path) -> None:
    test = TestId("test_x.py", f"TestA::test_b[{'long' * 100}]", "n" * 200)
    assert len(baseline_path(tmp_path / "test_x.py", test, "k" * 300).name.encode()) <= 160


@pytest.mark.parametrize("reserved", ["con", "nul", "com1"])
def test_names_reserved_on_windows_get_a_hash(reserved: str) -> None:
    assert HASHED.fullmatch(stem(reserved))
    assert HASHED.fullmatch(stem(reserved, "second"))


@pytest.mark.parametrize("parameter", ["../../etc/passwd", "..\\..\\x", "/root", "a/../../../b", "C:\\x"])
def test_no_id_leaves_the_folder(tmp_path: Path, parameter: str) -> None:
    module = tmp_path / "test_x.py"
    path = baseline_path(module, TestId("test_x.py", f"test_a[{parameter}]", None), parameter).resolve()
    assert path.parent == (tmp_path / "__difftrace__" / "test_x").resolve()
    assert ".." not in path.name


def test_hash_does_not_depend_on_where_the_project_lies(tmp_path: Path) -> None:
    test = TestId("test_x.py", "test_a[é]", None)
    one, other = (baseline_path(tmp_path / folder / "test_x.py", test).name for folder in "ab")
    assert one == other


def test_unicode_forms_of_one_id_share_a_file(suite, run_pytest, baselines, pytester):
    pytester.makeini("[pytest]\ndisable_test_id_escaping_and_forfeit_all_rights_to_community_support = true")
    suite("@pytest.mark.parametrize('p', ['é'])\ndef test_a(p, difftrace): difftrace.check(traj(3))\n")
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    before = baselines()
    suite("@pytest.mark.parametrize('p', ['e\u0301'])\ndef test_a(p, difftrace): difftrace.check(traj(3))\n")
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)
    assert baselines() == before


def test_ids_that_look_alike_after_replacing_keep_their_own_baselines(suite, run_pytest, baselines):
    suite(
        """
@pytest.mark.parametrize('p', ['x/y', 'x:y', 'x_y', 'X_Y', '../../x'])
def test_a(p, difftrace): difftrace.check(traj(*map(ord, p)))
"""
    )
    run_pytest("--difftrace-record").assert_outcomes(passed=5)
    assert len(baselines()) == 5
    run_pytest("--difftrace-verify").assert_outcomes(passed=5)


def test_file_of_another_test_is_refused_and_never_overwritten(suite, run_pytest, baselines, pytester):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    folder = pytester.path / "__difftrace__" / "test_x"
    (folder / "test_a.json").rename(folder / "test_b.json")
    before = baselines()
    suite("def test_b(difftrace): difftrace.check(traj(4))\n")
    for flag in ("--difftrace-verify", "--difftrace-record", "--difftrace-record=all"):
        result = run_pytest(flag)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["difftrace: the baseline belongs to another test", "  this test: *::test_b", "  its test: *::test_a"]
        )
        assert baselines() == before


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "é", "a b", "../x", 3])
def test_names_that_are_no_file_names_are_refused(suite, run_pytest, baselines, name: object):
    suite(f"def test_a(difftrace): difftrace.check(traj(3), name={name!r})\n")
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E  *ValueError: name=*a check's name consists of*"])
    assert not baselines()


def test_commands_look_for_baselines_where_the_plugin_puts_them() -> None:
    assert baseline_names.FOLDER == reporting.FOLDER
