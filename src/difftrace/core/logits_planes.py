"""Words as planes of bytes, each compressed by itself.

Every word is first rotated by one bit, which brings the sign to its end and a float's exponent into its first byte.
Then all first bytes follow each other, all second ones and so on. Exponents of logits take few values, so that their
plane shrinks, while mantissas are close to random and are kept as they are. Splitting bytes apart is the shuffle of
HDF5 and Blosc (K. Masui et al., "A compression scheme for radio data in high performance computing", 2015, goes on to
bits); that the exponents are what shrinks in a model's numbers is measured in M. Hershcovitch et al., "ZipNN", 2024.

A plane is a varint size, then so many bytes: a zstd frame (RFC 8878) that does not state its content size, or the plane
itself where the size is that of the plane.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from difftrace.core.errors import FormatError
from difftrace.core.logits_dtypes import Bits
from difftrace.core.varint import Reader, varint

# The entropy coder is what shrinks a plane. Higher levels look for repetitions, of which there are none.
_LEVEL: Final = 1
# A frame costs about ten bytes.
_LEAST: Final = 16
_SMALLEST_WINDOW: Final = 1 << 10


def write_planes(words: Bits) -> bytes:
    """Return `words` [n], the most significant plane first."""
    import zstandard

    if words.size == 0:
        return b""
    rotated = words << 1 | words >> (8 * words.itemsize - 1)
    planes = rotated.view(np.uint8).reshape(words.size, words.itemsize)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=words.size, write_content_size=False, write_checksum=False, write_dict_id=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    parts = []
    for place in reversed(range(words.itemsize)):
        plane = planes[:, place].tobytes()
        frame = compressor.compress(plane) if len(plane) >= _LEAST else plane
        kept = frame if len(frame) < len(plane) else plane
        parts += [varint(len(kept)), kept]
    return b"".join(parts)


def read_planes(reader: Reader, count: int, word: np.dtype[np.unsignedinteger]) -> Bits:
    """Return the `count` words that `write_planes` wrote, of the dtype `word`; memory stays proportional to them.

    Raises:
        FormatError: the bytes end too early, or expand to something else.
    """
    if count == 0:
        return np.zeros(0, dtype=word)
    planes = np.empty((count, word.itemsize), dtype=np.uint8)
    for place in reversed(range(word.itemsize)):
        planes[:, place] = np.frombuffer(_plane(reader, count), dtype=np.uint8)
    rotated: Bits = planes.view(word).reshape(count)
    words: Bits = np.bitwise_or(rotated >> 1, rotated << (8 * word.itemsize - 1), dtype=word)
    return words


def _plane(reader: Reader, count: int) -> bytes:
    import zstandard

    size = reader.bounded(count, "the size of a plane of bytes")
    start = reader.skip(size)
    data = reader.buffer[start : start + size]
    if size == count:
        return data
    # A window wider than the data would only cost memory.
    window = max(_SMALLEST_WINDOW, 1 << (count - 1).bit_length())
    try:
        # zstandard ignores max_output_size for a frame that states its size, so none of those is accepted.
        if zstandard.get_frame_parameters(data).content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise FormatError("a plane of bytes states its expanded size, which none of ours does")
        decompressor = zstandard.ZstdDecompressor(max_window_size=window)
        plane = decompressor.decompress(data, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"a plane of bytes does not expand to the {count} that it should: {error}") from None
    if len(plane) != count:
        raise FormatError(f"a plane of bytes expands to {len(plane)} instead of {count}")
    return plane
