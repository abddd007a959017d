from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftrace.core.baseline import Baseline, SamplerIdentity, SequenceRecord, dump, load, parse, save
from difftrace.core.errors import FormatError, WriteError
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.trajectory import Trajectory

Make = Callable[..., Trajectory]
Document = dict[str, Any]


def refusal(data: bytes) -> str:
    """Return the message that refuses `data`, after checking that it is one line naming the file."""
    with pytest.raises(FormatError) as caught:
        parse(data, "golden.json")
    message = str(caught.value)
    assert message.startswith("golden.json: ")
    assert message.isprintable()
    return message


def edited(baseline: Baseline, edit: Callable[[Document], object]) -> bytes:
    document = json.loads(dump(baseline))
    edit(document)
    return json.dumps(document).encode()


def setting(*path: str | int, value: object) -> Callable[[Document], None]:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return edit


def test_a_baseline_round_trips(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "__difftrace__" / "test_sum" / "TestSum.test_small.json"
    save(path, baseline)
    assert load(path) == baseline
    assert load(str(path)) == baseline


def test_a_baseline_of_nothing_but_decisions_round_trips(random_trajectory: Make) -> None:
    bare = Baseline(None, None, None, {}, {}, (SequenceRecord(random_trajectory(), None, None),))
    assert parse(dump(bare), "bare.json") == bare


def test_the_same_content_gives_the_same_bytes_whatever_its_order(baseline: Baseline) -> None:
    assert baseline.sampler is not None
    turned = dataclasses.replace(
        baseline,
        sampler=SamplerIdentity("llada", 1, dict(reversed(baseline.sampler.arguments.items()))),
        environment=dict(reversed(baseline.environment.items())),
        pieces=dict(reversed(baseline.pieces.items())),
    )
    assert dump(turned) == dump(baseline) == dump(parse(dump(baseline), "golden.json"))


def test_the_file_is_plain_ascii_json_a_reviewer_can_read(baseline: Baseline) -> None:
    text = dump(baseline).decode("ascii")
    assert text.endswith("}\n")
    assert "\x1b" not in text
    assert ' "version": "1.0"' in text.splitlines()
    assert json.loads(text)["sequences"][0]["text"] == "42"


def test_the_digest_covers_the_decisions_and_nothing_else(baseline: Baseline, random_trajectory: Make) -> None:
    lines = ["difftrace-baseline-1", *(record.trajectory.digest for record in baseline.sequences)]
    assert baseline.digest == "sha256:" + hashlib.sha256("".join(f"{x}\n" for x in lines).encode()).hexdigest()
    elsewhere = dataclasses.replace(baseline, environment={"device": "gfx942"}, model=None, pieces={})
    assert baseline.same_decisions(elsewhere)
    other = dataclasses.replace(baseline, sequences=(SequenceRecord(random_trajectory(), None, None),))
    assert not baseline.same_decisions(other)
    assert not baseline.same_decisions(dataclasses.replace(baseline, sequences=baseline.sequences[::-1]))


def test_every_truncation_is_refused(baseline: Baseline) -> None:
    data = dump(baseline)
    for size in range(0, len(data) - 2, 7):
        assert "is not complete JSON" in refusal(data[:size])


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    refusal(data)


@given(place=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_leaves_the_decisions_as_they_were(
    valid_file: tuple[Baseline, bytes], place: int, value: int
) -> None:
    golden, data = valid_file
    changed = bytearray(data)
    changed[place % len(changed)] = value
    try:
        read = parse(bytes(changed), "golden.json")
    except FormatError:
        return
    assert read.same_decisions(golden)


@pytest.fixture(scope="module")
def valid_file(random_trajectory: Make) -> tuple[Baseline, bytes]:
    golden = Baseline(None, None, None, {"a": 1.5}, {3: "x"}, (SequenceRecord(random_trajectory(24, 8), "t", "p"),))
    return golden, dump(golden)


def test_every_flipped_byte_of_the_payload_is_refused(baseline: Baseline) -> None:
    payload = base64.b64decode(json.loads(dump(baseline))["sequences"][0]["decisions"])
    for place in range(len(payload)):
        changed = bytearray(payload)
        changed[place] ^= 1
        text = base64.b64encode(changed).decode()
        message = refusal(edited(baseline, setting("sequences", 0, "decisions", value=text)))
        assert message.startswith("golden.json: $.sequences[0].decisions: ")


def test_the_payload_of_another_run_does_not_match_its_digest(baseline: Baseline, random_trajectory: Make) -> None:
    other = random_trajectory(16, 8, prompt=4, padding=3, seed=9)
    text = base64.b64encode(other.to_bytes()).decode()
    message = refusal(edited(baseline, setting("sequences", 0, "decisions", value=text)))
    assert "$.sequences[0].digest: does not match the decisions" in message


DIGEST = f"sha256:{'0' * 64}"

CASES: dict[str, tuple[Callable[[Document], object], str]] = {
    "a foreign format": (setting("format", value="other"), '$.format: is not "difftrace-baseline"'),
    "a newer version": (setting("version", value="1.1"), "$.version: is 1.1, written by a newer pytest-difftrace"),
    "a much newer version": (setting("version", value="12.0"), "written by a newer pytest-difftrace"),
    "a version that never was": (setting("version", value="0.0"), "$.version: 0.0 was never released"),
    "a version that is a number": (setting("version", value=0.1), '$.version: is not a version such as "1.0"'),
    "a version that is text": (setting("version", value="x\n"), "$.version: is not a version"),
    "an unknown field": (setting("extra", value=1), "$: Additional properties are not allowed ('extra' was"),
    "a missing field": (lambda d: d.pop("pieces"), "$: 'pieces' is a required property"),
    "an unknown model field": (setting("model", "extra", value=1), "$.model: Additional properties"),
    "no sequences": (setting("sequences", value=[]), "$.sequences: [] "),
    "a digest of another form": (setting("digest", value="md5:1"), "$.digest: 'md5:1' does not match"),
    "another digest": (setting("digest", value=DIGEST), "$.digest: does not match the sequences"),
    "another digest of a sequence": (
        setting("sequences", 1, "digest", value=DIGEST),
        "$.sequences[1].digest: does not match the decisions",
    ),
    "text as steps": (setting("sequences", 0, "steps", value="8"), "$.sequences[0].steps: '8' is not of type"),
    "more steps than there are": (
        setting("sequences", 0, "steps", value=9),
        "$.sequences[0].steps: is 9, but the decisions hold 8",
    ),
    "another canvas": (setting("sequences", 0, "canvas_length", value=22), "canvas_length: is 22, but the"),
    "another prompt": (setting("sequences", 0, "prompt_length", value=5), "prompt_length: is 5, but the"),
    "other events": (setting("sequences", 0, "events", value=15), "events: is 15, but the decisions hold 16"),
    "ten gigabytes": (
        setting("sequences", 0, "canvas_length", value=10 << 30),
        "$.sequences[0].canvas_length: 10737418240 is greater than the maximum",
    ),
    "much in many sequences": (
        lambda d: d.update(sequences=[{**d["sequences"][0], "events": 1 << 22}] * 3),
        "$.sequences: they announce 12582993 numbers, more than the limit",
    ),
    "no base64": (setting("sequences", 0, "decisions", value="ab!c"), "$.sequences[0].decisions: is not base64"),
    "base64 beyond ASCII": (setting("sequences", 0, "decisions", value="é"), "decisions: is not base64"),
    "no payload": (setting("sequences", 0, "decisions", value=""), "decisions: these bytes are not an encoded"),
    "a smaller vocabulary": (
        setting("model", "vocab_size", value=1000),
        "$.model.mask_token_id: the token 126336 is outside the vocabulary of 1000",
    ),
    "a mask outside the vocabulary": (
        setting("model", "mask_token_id", value=126464),
        "$.model.mask_token_id: the token 126464 is outside the vocabulary of 126464",
    ),
    "a piece outside the vocabulary": (setting("pieces", "126464", value="x"), "$.pieces: the token 126464 is"),
    "a piece of no number": (setting("pieces", "01", value="x"), "$.pieces: '01' does not match"),
    "a piece of no text": (setting("pieces", "1", value=None), "$.pieces"),
    "half a character": (setting("sequences", 0, "text", value="\ud83d"), "$.sequences[0].text: holds half a"),
    "a nested argument": (setting("sampler", "arguments", "x", value={}), "$.sampler.arguments.x: {} is not"),
    "a nested environment": (setting("environment", "x", value=[[]]), "$.environment.x[0]: [] is not of type"),
    "a folder as module": (setting("test", "module", value="../x.py"), "$.test.module: '../x.py' does not match"),
    "a number too large": (setting("sampler", "version", value=10**30), "an integer of 31 characters"),
}


@pytest.mark.parametrize(("edit", "message"), CASES.values(), ids=CASES)
def test_a_fault_is_named_with_its_field(baseline: Baseline, edit: Callable[[Document], object], message: str) -> None:
    assert message in refusal(edited(baseline, edit))


@pytest.mark.parametrize("document", [b"[]", b"null", b"3", b'"difftrace-baseline"', b"{}"])
def test_other_json_is_no_baseline(document: bytes) -> None:
    assert "this is no baseline" in refusal(document)


def test_a_key_given_twice_is_refused(baseline: Baseline) -> None:
    data = dump(baseline).replace(b'"format"', b'"digest": "x", "format"')
    assert "gives the key 'digest' twice" in refusal(data)


def test_numbers_that_are_not_json_are_refused(baseline: Baseline) -> None:
    assert "holds NaN" in refusal(dump(baseline).replace(b'"threads": 2', b'"threads": NaN'))
    assert "too large" in refusal(dump(baseline).replace(b'"threads": 2', b'"threads": 1e999'))


def test_whole_numbers_written_as_fractions_become_integers(baseline: Baseline) -> None:
    read = parse(edited(baseline, setting("model", "vocab_size", value=126464.0)), "golden.json")
    assert read.model is not None
    assert type(read.model.vocab_size) is int


@pytest.mark.parametrize(("name", "token"), [("prompt", 200_000), ("initial", 200_001), ("tokens", 200_002)])
def test_a_token_outside_the_vocabulary_is_named_with_its_place(baseline: Baseline, name: str, token: int) -> None:
    record = baseline.sequences[0]
    columns = {field: getattr(record.trajectory, field).copy() for field in ("prompt", "initial", "tokens")}
    columns[name][-1] = token
    changed = dataclasses.replace(record.trajectory, **columns)
    where = f"{name}[{columns[name].size - 1}]"
    if name == "tokens":
        where = f"step {changed.steps[-1]}, position {changed.positions[-1]}"
    with pytest.raises(FormatError, match="is outside the vocabulary of 126464") as caught:
        dump(dataclasses.replace(baseline, sequences=(dataclasses.replace(record, trajectory=changed),)))
    assert f"baseline: $.sequences[0].decisions: {where}: the token {token} is" in str(caught.value)


def test_a_file_beyond_the_size_limit_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    with path.open("wb") as file:
        file.truncate(100 * MAX_BASELINE_BYTES)
    with pytest.raises(FormatError, match="is larger than the limit of 16777216 bytes"):
        load(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent\.json: cannot be read \(.*No such file"):
        load(tmp_path / "absent.json")
    with pytest.raises(FormatError, match="cannot be read"):
        load(tmp_path)


def test_names_of_files_and_fields_cannot_act_on_the_terminal(tmp_path: Path, baseline: Baseline) -> None:
    with pytest.raises(FormatError) as caught:
        load(tmp_path / "\x1b[31m\n::error::x.json")
    assert str(caught.value).isprintable()
    refusal(edited(baseline, setting("\x1b[31m\n", value=1)))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1 + 2j, b"bytes", [1], {"a": 1}, 10**30, "\ud800"])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, baseline: Baseline, value: Any) -> None:
    save(tmp_path / "golden.json", baseline)
    before = (tmp_path / "golden.json").read_bytes()
    changed = dataclasses.replace(baseline, sampler=SamplerIdentity("llada", 1, {"x": value}))
    with pytest.raises(FormatError, match=r"golden\.json: "):
        save(tmp_path / "golden.json", changed)
    assert (tmp_path / "golden.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_saving_on_a_full_disk_leaves_the_old_baseline_whole(
    tmp_path: Path, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "golden.json"
    save(path, baseline)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"golden\.json: could not be written"):
        save(path, dataclasses.replace(baseline, pieces={}))
    assert load(path) == baseline
    assert len(list(tmp_path.iterdir())) == 1


def test_reading_and_comparing_needs_no_torch(tmp_path: Path, baseline: Baseline) -> None:
    save(tmp_path / "golden.json", baseline)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None;"
        "from difftrace.core.baseline import load; from difftrace.core.comparison import compare_sequences;"
        "import difftrace.core.run; golden = [r.trajectory for r in load(sys.argv[1]).sequences];"
        "print(compare_sequences(golden, golden))"
    )
    path = str(tmp_path / "golden.json")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
