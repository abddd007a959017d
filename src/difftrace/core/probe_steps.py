"""Probes of a baseline: module traces of some of its steps, packed into it, and taken out to be compared with.

A probe is the document of a layers file without its digest, as JSON without blanks, in a zstd frame. What is random
in it (sketches and digests) does not shrink, so sketches are kept in float32 where the tensor is no wider. Reading a
baseline checks sizes and digests; the documents are read only when they are asked for, since no comparison of
decisions needs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from difftrace.core import strict_json
from difftrace.core.errors import FormatError
from difftrace.core.file_format import json_bytes, naming
from difftrace.core.frames import compressor, expand
from difftrace.core.identity_rules import changed_identity
from difftrace.core.layers_json import document_of, layers_of
from difftrace.core.module_trace import GoldenLayers, ModuleTrace, TensorRecord
from difftrace.core.recording import Baseline, ProbeStep


def probe_of(layers: GoldenLayers) -> ProbeStep:
    """Return `layers` as a probe; distances within a unit roundoff of float32 cannot be told from it any more.

    Raises:
        FormatError: it holds what JSON cannot.
    """
    data = json_bytes(document_of(replace(layers, trace=_narrowed(layers.trace))))
    frame = compressor((len(data) - 1).bit_length()).compress(data)
    return ProbeStep(layers.origin.step, layers.origin.sequence, len(data), _sha256(data), frame)


def unpacked(probe: ProbeStep) -> bytes:
    """Return the document in a probe, of `probe.size` bytes.

    Raises:
        FormatError: the payload is no such document.
    """
    data = expand(probe.payload, probe.size, "the payload")
    if _sha256(data) != probe.digest:
        raise FormatError("the payload does not match the digest; the file was changed after it was made")
    return data


def golden_at(baseline: Baseline, probe: ProbeStep) -> GoldenLayers:
    """Return what a probe of `baseline` holds, as strictly read as a layers file.

    Raises:
        FormatError: it is no layers document, or was made from another run than the baseline's.
    """
    with naming(f"$.probes[{baseline.probes.index(probe)}]"):
        layers = layers_of({**strict_json.mapping(unpacked(probe)), "digest": probe.digest})
        origin = layers.origin
        if (origin.step, origin.sequence) != (probe.step, probe.sequence):
            raise FormatError("the payload is of another step or sequence than the probe says")
        changed = changed_identity(baseline, origin.model)
        if origin.baseline != baseline.digest or changed:
            what = f"a model of other {' and '.join(changed)}" if changed else "another run"
            raise FormatError(
                f"is of {what} than the baseline's; make it anew with `difftrace layers --into-baseline`, or remove it"
            )
        return layers


def check_probes(baseline: Baseline) -> None:
    """Check the content of all probes; raises FormatError naming the first that is wrong."""
    for probe in baseline.probes:
        golden_at(baseline, probe)


def with_probes(baseline: Baseline, layers: Iterable[GoldenLayers]) -> Baseline:
    """Return the baseline with these probes beside, or instead of, those of the same step and sequence.

    Raises:
        FormatError: one was made from something else, or holds what could not be read back.
    """
    made = [probe_of(one) for one in layers]
    kept = {(probe.step, probe.sequence): probe for probe in (*baseline.probes, *made)}
    probes = sorted(kept.values(), key=lambda probe: (probe.step, -1 if probe.sequence is None else probe.sequence))
    extended = replace(baseline, probes=tuple(probes))
    for probe in made:
        golden_at(extended, probe)
    return extended


def nearest(probes: Sequence[ProbeStep], step: int, sequence: int | None) -> ProbeStep | None:
    """Return the probe whose step is nearest to `step`, the earlier of two; None if there is none.

    Of `sequence` alone, if that is given; else of all as one batch, or of any if there are none of those.
    """
    fitting = [probe for probe in probes if probe.sequence == sequence]
    if not fitting and sequence is None:
        fitting = list(probes)
    return min(fitting, key=lambda probe: (abs(probe.step - step), probe.step), default=None)


def _narrowed(trace: ModuleTrace) -> ModuleTrace:
    return replace(trace, tensors=tuple(map(_narrow, trace.tensors)))


def _narrow(tensor: TensorRecord) -> TensorRecord:
    if tensor.sketch is None or tensor.dtype == "float64":
        return tensor
    with np.errstate(over="ignore"):
        sketch = np.array(tensor.sketch, dtype=np.float32)
    # Sums of the largest values of bfloat16 leave the range of float32.
    return replace(tensor, sketch=tuple(sketch.tolist())) if np.isfinite(sketch).all() else tensor


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
