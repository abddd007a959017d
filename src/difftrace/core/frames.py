"""zstd frames (RFC 8878) that do not state their size: the reader knows it, and allocates no more."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from difftrace.core.errors import FormatError

if TYPE_CHECKING:
    import zstandard

_LEVEL: Final = 19
_SMALLEST_WINDOW: Final = 1 << 10
# What larger ones hold on to is not worth keeping for the next time.
_LARGEST_KEPT_WINDOW: Final = 1 << 14


def compressor(bits: int) -> zstandard.ZstdCompressor:
    """Return a compressor for up to `2**bits` bytes; zstd chooses alike for all sizes down to half of that."""
    import zstandard

    # No sizes: the reader knows them, and a stated size would switch its limit off.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=1 << bits, write_content_size=False, write_checksum=False, write_dict_id=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def expand(frame: bytes, size: int, what: str) -> bytes:
    """Return the `size` bytes that `frame` expands to; messages call it `what` ("a compressed column").

    Raises:
        FormatError: it is no such frame, or of another size.
    """
    import zstandard

    # A window wider than the data would only cost memory.
    window = max(_SMALLEST_WINDOW, 1 << (size - 1).bit_length())
    kept = window <= _LARGEST_KEPT_WINDOW
    decompressor = _kept_decompressor(window, threading.get_ident()) if kept else _decompressor(window)
    try:
        stated = zstandard.get_frame_parameters(frame).content_size
        # zstandard ignores max_output_size for a frame that states its size, so none of those is accepted.
        if stated != zstandard.CONTENTSIZE_UNKNOWN:
            raise FormatError(f"{what} states its expanded size, which none of ours does")
        raw = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"{what} does not expand to the {size} bytes it should: {error}") from None
    if len(raw) != size:
        raise FormatError(f"{what} expands to {len(raw)} bytes instead of {size}")
    return raw


def _decompressor(window: int) -> zstandard.ZstdDecompressor:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=window)


@lru_cache(maxsize=32)
def _kept_decompressor(window: int, thread: int) -> zstandard.ZstdDecompressor:
    """Return the decompressor of one thread, for two must not use it at once; making it takes longer than its use."""
    return _decompressor(window)
