"""Files that outlive a process: where a user's cache is, and how a file gets its name only when it is whole."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """UNRAIN_CACHE, or unrain's own in the user's cache folder. RuntimeError for a user who has no home."""
    chosen = os.environ.get("UNRAIN_CACHE")
    return Path(chosen) if chosen else _users_caches() / "unrain"


def _users_caches() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` at the end, and is gone if anything goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".unrain-{secrets.token_hex(6)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
