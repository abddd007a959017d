"""The layers file: a golden module trace, made where the golden run was, to be compared with elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from difftrace.core import strict_json
from difftrace.core.atomic import write_atomically
from difftrace.core.errors import FormatError
from difftrace.core.file_format import json_file, naming, read_file
from difftrace.core.layers_json import digest_of, document_of, layers_of
from difftrace.core.limits import MAX_LAYERS_BYTES
from difftrace.core.module_trace import GoldenLayers
from difftrace.core.text import printable


def dump_layers(layers: GoldenLayers, source: str = "layers") -> bytes:
    """Return the file for `layers`: JSON with sorted keys, in ASCII, the same bytes for the same content.

    Raises:
        FormatError: it could not be read back; `source` names it in the message.
    """
    document = document_of(layers)
    with naming(source):
        data = json_file({**document, "digest": digest_of(document)})
    parse_layers(data, source)
    return data


def parse_layers(data: bytes, source: str) -> GoldenLayers:
    """Return the trace in `data`, the content of the file that messages call `source`.

    Raises:
        FormatError: one line naming the file and the field.
    """
    with naming(source):
        if len(data) > MAX_LAYERS_BYTES:
            raise FormatError(f"is larger than the limit of {MAX_LAYERS_BYTES} bytes for a layers file")
        return layers_of(strict_json.loads(data))


def load_layers(path: str | os.PathLike[str]) -> GoldenLayers:
    """Return the trace in the file `path`.

    Raises:
        FormatError: one line naming the file and the field, also if it cannot be read.
    """
    return parse_layers(*read_file(path, MAX_LAYERS_BYTES))


def save_layers(path: str | os.PathLike[str], layers: GoldenLayers) -> None:
    """Write `layers` to the file `path` as a whole or not at all, creating missing folders.

    Raises:
        WriteError: it could not be written; a file that was there before is whole.
        FormatError: it holds something that could not be read back; nothing was written.
    """
    write_atomically(path, dump_layers(layers, printable(str(Path(path)))))
