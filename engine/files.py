"""Writing files: whole or not at all, and what goes wrong is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UnrainError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` at the end, and is gone if anything goes wrong."""
    from ..kernels import kept  # loads torch, which whoever only reads this module does not want

    try:
        with kept.replacing(path) as part:
            yield part
    except OSError as error:
        raise UnrainError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error


def write(path: Path, data: bytes | str) -> None:
    with replacing(path) as part:
        if isinstance(data, str):
            part.write_text(data, encoding="utf-8", newline="\n")
        else:
            part.write_bytes(data)
