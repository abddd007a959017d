"""Probes come back from a baseline as they were put in, and anything else there is refused in one line."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard

from difftrace.core.baseline import Baseline, dump, parse
from difftrace.core.classification import classify
from difftrace.core.errors import FormatError, NewerFormatError
from difftrace.core.layers_json import document_of
from difftrace.core.limits import MAX_PROBE_BYTES
from difftrace.core.module_trace import (
    SKETCH_BUCKETS,
    CallRecord,
    GoldenLayers,
    ModuleRecord,
    ModuleTrace,
    TensorRecord,
    TraceOrigin,
)
from difftrace.core.probe_steps import check_probes, golden_at, nearest, with_probes
from difftrace.core.recording import ProbeStep
from difftrace.core.schemas import violation

Document = dict[str, Any]
Edit = Callable[[Any], object]

DIGEST = "sha256:" + "0" * 64
RANDOM = np.random.default_rng(7)


def tensor(dtype: str, scale: float = 1.0) -> TensorRecord:
    sketch = scale * RANDOM.normal(size=SKETCH_BUCKETS)
    return TensorRecord(dtype, (4, 8), DIGEST, float(np.linalg.norm(sketch)), 0, tuple(sketch.tolist()))


TRACE = ModuleTrace(
    modules=(ModuleRecord(("",), "Model", True, ()), ModuleRecord(("a",), "Linear", True, ())),
    tensors=(
        TensorRecord("int64", (1, 2), DIGEST, None, 0, None),
        tensor("float32"),
        tensor("float64"),
        tensor("bfloat16", 1e60),
    ),
    calls=(CallRecord(0, None, (0,), (1,)), CallRecord(1, 0, (2,), (3,))),
    draws_random_numbers=False,
)


def layers(baseline: Baseline, step: int = 3, sequence: int | None = None, **more: Any) -> GoldenLayers:
    origin = TraceOrigin(baseline.digest, step, sequence, baseline.model, {"canary": DIGEST, **more})
    return GoldenLayers(origin, TRACE)


@pytest.fixture
def probed(baseline: Baseline) -> Baseline:
    return with_probes(baseline, [layers(baseline), layers(baseline, 5, 1)])


def test_probes_round_trip(baseline: Baseline, probed: Baseline) -> None:
    data = dump(probed)
    read = parse(data, "golden.json")
    assert read == probed
    assert dump(read) == data
    assert violation("baseline", json.loads(data)) is None
    check_probes(read)
    assert [(probe.step, probe.sequence) for probe in read.probes] == [(3, None), (5, 1)]
    found = golden_at(read, read.probes[0])
    assert found.origin == layers(baseline).origin
    assert (found.trace.modules, found.trace.calls) == (TRACE.modules, TRACE.calls)


def test_a_sketch_keeps_the_precision_of_its_tensor(baseline: Baseline, probed: Baseline) -> None:
    integers, narrow, wide, huge = golden_at(probed, probed.probes[0]).trace.tensors
    assert (integers, wide, huge) == (TRACE.tensors[0], TRACE.tensors[2], TRACE.tensors[3])
    kept, given = narrow.sketch, TRACE.tensors[1].sketch
    assert kept is not None
    assert given is not None
    assert kept != given
    assert math.dist(kept, given) < 2.0**-24 * (narrow.norm or 0.0)


def test_probes_are_no_part_of_what_has_to_reproduce(baseline: Baseline, probed: Baseline) -> None:
    assert probed.digest == baseline.digest
    assert probed.same_decisions(baseline)
    assert classify(probed, baseline) == classify(baseline, baseline)
    assert json.loads(dump(probed)).keys() - json.loads(dump(baseline)).keys() == {"probes"}


def test_a_probe_takes_the_place_of_one_of_the_same_step_and_sequence(baseline: Baseline, probed: Baseline) -> None:
    again = with_probes(probed, [layers(baseline, 3, None, threads=2), layers(baseline, 3, 0), layers(baseline, 1)])
    assert [(probe.step, probe.sequence) for probe in again.probes] == [(1, None), (3, None), (3, 0), (5, 1)]
    assert golden_at(again, again.probes[1]).origin.environment["threads"] == 2
    assert again.probes[3] == probed.probes[1]


def test_what_could_not_be_compared_with_is_not_put_in(baseline: Baseline) -> None:
    foreign = dataclasses.replace(
        layers(baseline), origin=dataclasses.replace(layers(baseline).origin, baseline=DIGEST)
    )
    with pytest.raises(FormatError, match="is of another run than the baseline's"):
        with_probes(baseline, [foreign])
    with pytest.raises(FormatError, match="holds a value that JSON cannot"):
        with_probes(baseline, [layers(baseline, x=math.nan)])


def probe(step: int, sequence: int | None = None) -> ProbeStep:
    return ProbeStep(step, sequence, 1, DIGEST, b"")


@pytest.mark.parametrize(
    ("probes", "step", "sequence", "found"),
    [
        ([], 3, None, None),
        ([probe(0), probe(8)], 4, None, probe(0)),
        ([probe(0), probe(8)], 5, None, probe(8)),
        ([probe(2), probe(3, 1)], 3, None, probe(2)),
        ([probe(2), probe(9, 1)], 3, 1, probe(9, 1)),
        ([probe(2), probe(9, 1)], 3, 0, None),
        ([probe(7, 0), probe(9, 1)], 9, None, probe(9, 1)),
    ],
)
def test_the_nearest_probe_is_one_of_what_is_run(
    probes: list[ProbeStep], step: int, sequence: int | None, found: ProbeStep | None
) -> None:
    assert nearest(probes, step, sequence) == found


def packed(document: object, **more: Any) -> Document:
    """A probe of whatever `document` is, with sizes and digests that fit."""
    data = (
        document
        if isinstance(document, bytes)
        else json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    )
    parameters = zstandard.ZstdCompressionParameters.from_level(3, write_content_size=False)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    return {
        "step": 3,
        "sequence": None,
        "size": len(data),
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "payload": base64.b64encode(frame).decode(),
        **more,
    }


def read_with(baseline: Baseline, *probes: Document) -> Baseline:
    return parse(json.dumps({**json.loads(dump(baseline)), "probes": list(probes)}).encode(), "golden.json")


def content(baseline: Baseline, edit: Edit = lambda document: None) -> Document:
    document = json.loads(json.dumps(document_of(layers(baseline))))
    edit(document)
    return document


def bomb(size: int, **options: Any) -> str:
    return base64.b64encode(zstandard.ZstdCompressor(**options).compress(bytes(size))).decode()


OUTSIDE: dict[str, tuple[Document, str]] = {
    "another size": ({"size": 9}, r"payload: the payload does not expand to the 9 bytes|expands to"),
    "a larger size": ({"size": 1 << 20}, "payload: the payload expands to .* bytes instead of 1048576"),
    "a size beyond the limit": ({"size": MAX_PROBE_BYTES + 1}, r"\$.probes: they announce 67108865 bytes, more than"),
    "no size": ({"size": 0}, r"\$.probes\[0\].size: 0 is less than the minimum"),
    "another digest": ({"digest": DIGEST}, "payload does not match the digest; the file was changed"),
    "no base64": ({"payload": "?"}, r"\$.probes\[0\].payload: is not base64"),
    "no frame": ({"payload": "AAAA"}, "the payload does not expand to"),
    "an expanding frame": (
        {"payload": bomb(1 << 24, compression_params=zstandard.ZstdCompressionParameters(write_content_size=False))},
        "the payload does not expand to",
    ),
    "a frame that states its size": ({"payload": bomb(1 << 24)}, "the payload states its expanded size"),
    "no such step": ({"step": 8}, r"\$.probes\[0\].step: there is no step 8"),
    "no such sequence": ({"sequence": 2}, r"\$.probes\[0\].sequence: there is no sequence 2"),
    "a negative step": ({"step": -1}, r"\$.probes\[0\].step: -1 is less than"),
    "an unknown field": ({"more": 1}, r"\$.probes\[0\]: .*'more' was unexpected"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_probe_that_is_not_whole_is_refused_when_the_baseline_is_read(baseline: Baseline, case: str) -> None:
    change, says = OUTSIDE[case]
    with pytest.raises(FormatError, match=says) as caught:
        read_with(baseline, {**packed(content(baseline)), **change})
    assert str(caught.value).startswith("golden.json: $.probes")
    assert str(caught.value).isprintable()


def test_every_flipped_byte_of_a_probe_is_refused(probed: Baseline) -> None:
    payload = probed.probes[0].payload
    document = json.loads(dump(probed))
    for place in range(0, len(payload), 17):
        changed = bytearray(payload)
        changed[place] ^= 1
        document["probes"][0]["payload"] = base64.b64encode(changed).decode()
        with pytest.raises(FormatError, match=r"golden.json: \$.probes\[0\].payload: the payload "):
            parse(json.dumps(document).encode(), "golden.json")


def test_many_probes_are_bounded_together_and_each_is_there_once(baseline: Baseline) -> None:
    one = packed(content(baseline))
    with pytest.raises(FormatError, match=r"\$.probes\[1\]: is of the same step and sequence as another"):
        read_with(baseline, one, one)
    with pytest.raises(FormatError, match=r"they announce .* bytes, more than the limit"):
        read_with(baseline, *({**one, "step": step, "size": MAX_PROBE_BYTES // 2} for step in range(3)))
    with pytest.raises(FormatError, match=r"\$.probes: \[\] "):
        read_with(baseline)


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_older_formats_have_no_probes(baseline: Baseline, probed: Baseline, version: str) -> None:
    data = dump(probed).replace(b'"version": "1.0"', f'"version": "{version}"'.encode())
    with pytest.raises(FormatError, match=r"\$: 'probes' should not be valid"):
        parse(data, "golden.json")


def setting(*path: Any, value: object) -> Edit:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return edit


INSIDE: dict[str, tuple[Edit, str]] = {
    "a foreign document": (setting("format", value="x"), 'is not "difftrace-layers"'),
    "another step": (setting("origin", "step", value=4), "is of another step or sequence than the probe says"),
    "another sequence": (setting("origin", "sequence", value=0), "is of another step or sequence than the probe says"),
    "another run": (setting("origin", "baseline", value=DIGEST), "is of another run than the baseline's; make it anew"),
    "another model": (
        setting("origin", "model", "weights", value=DIGEST),
        "is of a model of other weights than the baseline's; make it anew",
    ),
    "a tensor that is not there": (setting("trace", "calls", 0, "inputs", value=[9]), "refers to tensor 9, but there"),
    "an unknown field": (setting("trace", "more", value=1), r"\$.trace: .*'more' was unexpected"),
    "a short sketch": (
        setting("trace", "tensors", 1, "sketch", value="AAAA"),
        "holds 3 bytes, not 67 numbers of 4 or 8",
    ),
    "half a character": (setting("trace", "modules", 1, "kind", value="\ud800"), "holds half a surrogate pair"),
}


@pytest.mark.parametrize("case", INSIDE)
def test_what_is_no_golden_trace_is_refused_when_it_is_asked_for(baseline: Baseline, case: str) -> None:
    edit, says = INSIDE[case]
    read = read_with(baseline, packed(content(baseline, edit)))
    assert classify(read, baseline) == classify(baseline, baseline)
    with pytest.raises(FormatError, match=says) as caught:
        check_probes(read)
    assert str(caught.value).startswith("$.probes[0]: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[]", "is no JSON object"),
        (b"\xff", "is not UTF-8 text"),
        (b'{"format": "difftrace-layers", "format": 1}', "gives the key 'format' twice"),
        (b"{" * 20_000, "is not complete JSON|is nested too deeply"),
    ],
)
def test_bytes_that_are_no_document_are_refused(baseline: Baseline, data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        check_probes(read_with(baseline, packed(data)))


def test_a_document_with_blanks_has_another_digest_than_its_bytes(baseline: Baseline) -> None:
    with pytest.raises(FormatError, match=r"\$.digest: does not match the content"):
        check_probes(read_with(baseline, packed(json.dumps(content(baseline), sort_keys=True).encode())))


def test_a_newer_document_is_told_from_a_broken_one(baseline: Baseline) -> None:
    with pytest.raises(NewerFormatError, match="written by a newer pytest-difftrace"):
        check_probes(read_with(baseline, packed(content(baseline, setting("version", value="9.0")))))
