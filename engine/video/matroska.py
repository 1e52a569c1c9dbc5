"""What a Matroska or WebM file says of its own length: the one sign that a copy of it broke off.

FFmpeg reads such a file to where it ends and says nothing, and the container counts no frames.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_SKIPPED = 1 << 16  # bytes of other elements that may stand before the segment


def is_cut_off(path: Path) -> bool:
    """Whether the file ends before its segment does. One that was written as a stream does not say."""
    try:
        with path.open("rb") as file:
            end = _end_of_segment(file)
            return end is not None and end > os.fstat(file.fileno()).st_size
    except OSError:
        return False


def _end_of_segment(file: BinaryIO) -> int | None:
    if file.read(4) != _EBML:
        return None
    while file.tell() < _SKIPPED:
        size = _size(file)
        if size is None:
            return None
        file.seek(size, os.SEEK_CUR)
        name = _identifier(file)
        if name is None:
            return None
        if name == _SEGMENT:
            size = _size(file)
            return None if size is None else file.tell() + size
    return None


def _identifier(file: BinaryIO) -> bytes | None:
    """As many bytes as the zeros before its first bit say, that bit included."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    return first + file.read(8 - first[0].bit_length())


def _size(file: BinaryIO) -> int | None:
    """The same without that bit; all ones stand for "not known"."""
    data = _identifier(file)
    if data is None:
        return None
    bits = 7 * len(data)
    value = int.from_bytes(data, "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
