"""`difftrace html`: reports and baselines as one page."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.baseline import TestId, save
from difftrace.core.checked import BaselineFile, Checked, FirstDivergence, ReceivedFile
from difftrace.core.report import Report, RunSettings, Selection
from difftrace.core.report import save as save_report
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory


def run(*tokens: int) -> Any:
    count = len(tokens)
    trajectory = Trajectory(
        prompt=[1],
        initial=[1, *[9] * count],
        steps=range(count),
        positions=range(1, count + 1),
        tokens=tokens,
        num_steps=count,
    )
    return Run((trajectory,)).to_baseline(TestId("test_a.py", "test_a", None))


def checks_of(page: Path) -> list[dict[str, Any]]:
    (text,) = re.findall(r'type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return json.loads(text)["checks"]


def details_of(check: dict[str, Any]) -> dict[str, Any]:
    data = zlib.decompress(base64.b64decode(check["pack"]))
    return json.loads(data[4 : 4 + struct.unpack_from("<I", data)[0]])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder as a run leaves it, of one check that diverged."""
    golden, observed = run(2, 3, 4), run(2, 5, 4)
    save(tmp_path / "__difftrace__/test_a/test_a.json", golden)
    folder = tmp_path / ".difftrace"
    save(folder / "received/test_a.py/test_a.json", observed)
    check = Checked(
        nodeid="test_a.py::test_a",
        module="test_a.py",
        id="test_a",
        name=None,
        file="test_a.py",
        line=7,
        run=0,
        status="diverged",
        divergence_class="LOGIC",
        reason="It follows another rule.",
        judgement="LOGIC: the policy exact accepts no divergence",
        cannot_tell=(),
        outcome=None,
        first_divergence=FirstDivergence("decision", 0, 1, 2, 3, 5, None, "five", 1, 1),
        measured=(),
        budget=None,
        suspects=(),
        policy="exact",
        strategy="rerun",
        environment=None,
        seconds=0.1,
        baseline=BaselineFile("__difftrace__/test_a/test_a.json", True, golden.digest, f"sha256:{'0' * 64}"),
        target="__difftrace__/test_a/test_a.json",
        received=ReceivedFile("received/test_a.py/test_a.json", observed.digest, f"sha256:{'0' * 64}"),
        text="difftrace: diverged\n  at step 1",
    )
    settings = RunSettings("verify", None, "exact", (), (), "rerun", None, None)
    save_report(
        folder / "report.json",
        Report((), "..", ".", (settings,), Selection((".",), (), ()), (), (), (check,)),
    )
    return folder


def test_a_results_folder_shows_both_runs_of_a_diverged_check(difftrace, results, tmp_path):
    page = tmp_path / "page.html"
    assert difftrace("html", results, "-o", page)[0] == 0
    (check,) = checks_of(page)
    told = {name: check[name] for name in ("test", "status", "outcome", "class", "sequence", "step", "position")}
    assert told == {
        "test": "test_a.py::test_a",
        "status": "failed",
        "outcome": "diverged",
        "class": "LOGIC",
        "sequence": 0,
        "step": 1,
        "position": 2,
    }
    details = details_of(check)
    assert details["problems"] == []
    assert details["verdict"]["reason"] == "It follows another rule."
    (sequence,) = details["sequences"]
    assert None not in sequence["sides"]
    assert (sequence["divergence"]["step"], sequence["divergence"]["position"]) == (1, 2)
    assert (sequence["divergence"]["golden"], sequence["divergence"]["observed"]) == ("token 3", "token 5")


def test_a_report_file_is_as_good_as_its_folder(difftrace, results, tmp_path):
    for name, path in (("one", results), ("other", results / "report.json")):
        assert difftrace("html", path, "-o", tmp_path / name)[0] == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_files_that_a_report_names_and_are_not_there_are_told(difftrace, results, tmp_path):
    (results / "received/test_a.py/test_a.json").unlink()
    (tmp_path / "__difftrace__/test_a/test_a.json").write_text("{")
    assert difftrace("html", results, "-o", tmp_path / "page.html")[0] == 0
    (check,) = checks_of(tmp_path / "page.html")
    baseline, received = details_of(check)["problems"]
    assert baseline.startswith("The baseline is not shown: ")
    assert received.startswith("The received run is not shown: there is no file ")
    assert check["step"] == 1


def test_golden_runs_of_a_report_from_elsewhere_are_those_of_the_current_folder_or_the_one_given(
    difftrace, results, tmp_path, monkeypatch
):
    report = json.loads((results / "report.json").read_text())
    (results / "report.json").write_text(json.dumps({**report, "rootdir": None}))
    (tmp_path / "test_a.py").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    page = tmp_path / "page.html"

    def golden(*options: object) -> object:
        assert difftrace("html", results, "-o", page, *options)[0] == 0
        details = details_of(checks_of(page)[0])
        return details["problems"] or details["sequences"][0]["sides"][0] is not None

    monkeypatch.chdir(tmp_path)
    assert golden() is True
    monkeypatch.chdir(elsewhere)
    assert golden("--rootdir", tmp_path) is True
    name = "__difftrace__/test_a/test_a.json"
    assert golden() == [
        f"The baseline is not shown: it is not known which folder {name} is in; give it with --rootdir."
    ]


def test_a_baseline_that_changed_since_the_report_is_told(difftrace, results, tmp_path):
    save(tmp_path / "__difftrace__/test_a/test_a.json", run(2, 3, 7))
    difftrace("html", results, "-o", tmp_path / "page.html")
    (problem,) = details_of(checks_of(tmp_path / "page.html")[0])["problems"]
    assert problem.startswith("The baseline was written anew since the report: ")


def test_a_report_cannot_name_files_outside_its_folders(difftrace, results, tmp_path):
    report = results / "report.json"
    save(tmp_path.parent / "secret.json", run(2))
    report.write_text(report.read_text().replace("received/test_a.py/test_a.json", "received/../../../secret.json"))
    assert difftrace("html", results, "-o", tmp_path / "page.html")[0] == 0
    details = details_of(checks_of(tmp_path / "page.html")[0])
    assert details["sequences"][0]["sides"][1] is None
    assert details["problems"] == [
        "The received run is not shown: received/../../../secret.json: is no path below a folder."
    ]


def test_baselines_are_shown_alone(difftrace, results, tmp_path):
    code, out, _ = difftrace("html", tmp_path / "__difftrace__", "-o", tmp_path / "page.html", "--json")
    assert code == 0
    size = (tmp_path / "page.html").stat().st_size
    assert json.loads(out) == {"written": str(tmp_path / "page.html"), "checks": 1, "bytes": size}
    (check,) = checks_of(tmp_path / "page.html")
    assert (check["test"], check["status"], check["class"]) == ("test_a.py::test_a", "recorded", None)


def test_a_broken_baseline_in_a_folder_is_listed_and_a_named_one_refused(difftrace, results, tmp_path):
    broken = tmp_path / "__difftrace__/test_a/test_b.json"
    broken.write_text("{")
    assert difftrace("html", tmp_path / "__difftrace__", "-o", tmp_path / "page.html")[0] == 0
    assert [one["class"] for one in checks_of(tmp_path / "page.html")] == [None, "INVALID"]
    code, _, error = difftrace("html", broken, "-o", tmp_path / "none.html")
    assert code == 2
    assert "test_b.json" in error
    assert not (tmp_path / "none.html").exists()


def test_a_file_that_is_nested_too_deeply_is_named(difftrace, tmp_path):
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    code, _, error = difftrace("html", deep, "-o", tmp_path / "none.html")
    assert (code, "deep.json: is nested too deeply" in error) == (2, True)


def test_the_page_never_takes_the_place_of_what_it_shows(difftrace, results):
    report = results / "report.json"
    before = report.read_bytes()
    code, _, error = difftrace("html", report, "-o", report)
    assert code == 2
    assert "is one of the files to show" in error
    assert report.read_bytes() == before


def test_a_page_takes_the_place_of_pages_and_empty_files_alone(difftrace, results, tmp_path):
    page, notes = tmp_path / "page.html", tmp_path / "notes.html"
    page.touch()
    for title in ("First", "Second"):
        assert difftrace("html", results, "-o", page, "--title", title)[0] == 0
        assert f"<title>{title}</title>" in page.read_text(encoding="utf-8")
    mine = "<!doctype html>\n<title>Mine</title>\n"
    notes.write_text(mine, encoding="utf-8")
    code, _, error = difftrace("html", results, "-o", notes)
    assert code == 2
    assert "is there and no page of difftrace html: delete it, or write the page to another file" in error
    assert notes.read_text(encoding="utf-8") == mine


def test_writing_a_page_imports_neither_torch_nor_transformers(results, tmp_path):
    program = (
        "import sys\nfrom difftrace import cli\n"
        f"sys.argv = ['difftrace', 'html', {str(results)!r}, '-o', {str(tmp_path / 'page.html')!r}]\n"
        "try:\n    cli.main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'safetensors', 'pytest'} & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
