"""What format 0.3 adds to a baseline: the file of its logits, by name and digest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftrace.core.baseline import Baseline, SequenceRecord, dump, load, parse, save
from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_codec import Lossless, Lossy, Method, Top
from difftrace.core.logits_layout import LogitsLayout
from difftrace.core.logits_reference import LogitsReference, RecordedLogits, method_named
from difftrace.core.logits_writer import save_logits
from difftrace.core.schemas import violation
from difftrace.core.side_logits import lies_beside, open_beside, put_beside, remove_beside
from difftrace.core.trajectory import Trajectory

LAYOUT = LogitsLayout("bfloat16", 2, 1, 50, (2, 4))
DIGEST = f"sha256:{'ab' * 32}"


@pytest.fixture
def recorded(baseline: Baseline) -> Baseline:
    padded = Trajectory([5], [0, 0, 5, 9], [0], [3], [7], 2, 2, [0, 0, 1, 1])
    whole = Trajectory([5, 6, 7], [5, 6, 7, 9], [1], [3], [7], 2)
    records = tuple(SequenceRecord(trajectory, None, None) for trajectory in (padded, whole))
    return dataclasses.replace(
        baseline, sequences=records, logits=LogitsReference("golden.logits", DIGEST, LAYOUT, Lossy(0.01))
    )


@pytest.mark.parametrize("method", [Lossless(), Lossy(0.01), Top(7)])
def test_the_reference_round_trips_and_keeps_the_schema(recorded: Baseline, tmp_path: Path, method: Method) -> None:
    assert recorded.logits is not None
    recorded = dataclasses.replace(recorded, logits=dataclasses.replace(recorded.logits, method=method))
    save(tmp_path / "golden.json", recorded)
    assert load(tmp_path / "golden.json") == recorded
    document = json.loads(dump(recorded))
    assert violation("baseline", document) is None
    assert document["version"] == "1.0"
    assert document["logits"]["lengths"] == [2, 4]


def test_it_is_no_part_of_what_has_to_be_equal(recorded: Baseline) -> None:
    other = dataclasses.replace(recorded, logits=None)
    assert other.digest == recorded.digest
    assert "logits" not in json.loads(dump(other))


CASES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an older format": (lambda d: d.update(version="0.2"), "$: 'logits' should not be valid"),
    "a folder": (lambda d: d["logits"].update(file="../golden.logits"), "$.logits.file: "),
    "another file": (lambda d: d["logits"].update(file="golden.json"), "$.logits.file: "),
    "no bound": (lambda d: d["logits"].update(method={"name": "lossy"}), "$.logits.method: "),
    "a bound of 0": (lambda d: d["logits"].update(method={"name": "lossy", "bound": 0}), "$.logits.method: "),
    "more than there are": (lambda d: d["logits"].update(method={"name": "top", "k": 51}), "$.logits: the largest 51"),
    "lengths": (lambda d: d["logits"].update(lengths=[4, 4]), "$.logits.lengths: are not those of the sequences"),
    "steps": (lambda d: d["logits"].update(steps=3), "$.logits.steps: is 3, but"),
    "too much": (lambda d: d["logits"].update(steps=1 << 20, lengths=[1 << 20] * 9, vocabulary=1 << 24), "$.logits: "),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_reference_is_refused_naming_the_field(recorded: Baseline, case: str) -> None:
    edit, message = CASES[case]
    document = json.loads(dump(recorded))
    edit(document)
    with pytest.raises(FormatError) as caught:
        parse(json.dumps(document).encode(), "golden.json")
    assert str(caught.value).startswith(f"golden.json: {message}")


def _recorded(path: Path, word: int) -> RecordedLogits:
    bits = [np.full((2, 1, length, 50), word, dtype="<u2") for length in LAYOUT.lengths]
    return RecordedLogits(path, save_logits(path, LAYOUT, Lossless(), bits))


def test_the_file_beside_a_baseline_is_found_by_digest(tmp_path: Path) -> None:
    golden = tmp_path / "tests" / "golden.json"
    logits = _recorded(tmp_path / "run.logits", 1)
    reference = logits.beside(golden)
    assert reference.file == "golden.logits"
    golden.parent.mkdir()
    assert open_beside(golden, reference) is None
    assert not lies_beside(golden, reference)

    put_beside(golden, logits)
    found = open_beside(golden, reference)
    assert found is not None
    assert found.path == golden.with_name("golden.logits")
    assert lies_beside(golden, reference)
    assert [file.name for file in golden.parent.iterdir()] == ["golden.logits"]

    put_beside(golden, _recorded(tmp_path / "other.logits", 2))
    with pytest.raises(FormatError, match=r"golden\.logits: holds other logits .* than golden\.json was recorded with"):
        open_beside(golden, reference)
    assert not lies_beside(golden, reference)

    remove_beside(golden)
    remove_beside(golden)
    assert open_beside(golden, reference) is None


@pytest.mark.parametrize(("text", "method"), [("lossless", Lossless()), ("lossy:0.01", Lossy(0.01)), ("top:8", Top(8))])
def test_methods_have_names(text: str, method: Method) -> None:
    assert method_named(text) == method


@pytest.mark.parametrize("text", ["", "exact", "lossless:1", "lossy", "lossy:x", "top:1.5", "top:0", "lossy:nan"])
def test_names_of_no_method_are_refused(text: str) -> None:
    with pytest.raises(LogitsError):
        method_named(text)
