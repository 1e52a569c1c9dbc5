"""A small store on disk for what was measured: one JSON file per question, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UnrainError


def folder() -> Path:
    """UNRAIN_CACHE, or the user's cache folder. Raises an error for a user who has none."""
    chosen = os.environ.get("UNRAIN_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return _users() / "unrain"
    except RuntimeError as error:  # neither a HOME nor an entry in the list of users, as in many a container
        raise UnrainError("this user has no home folder to keep anything in; UNRAIN_CACHE names a folder") from error


def _users() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def key_of(**parts: Any) -> str:
    """One short name for everything that the answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def read(kind: str, key: str) -> dict[str, Any] | None:
    """What was stored, or None: not there, not readable and not JSON are the same to the caller, who measures again."""
    try:
        found = json.loads((folder() / f"{kind}-{key}.json").read_text())
    except (OSError, UnrainError, ValueError, RecursionError):  # the last: brackets in brackets, thousands deep
        return None
    return found if isinstance(found, dict) else None


def write(kind: str, key: str, value: dict[str, Any]) -> None:
    """Stores it under a temporary name and renames; a folder that cannot be written to costs the next run a trial."""
    with suppress(OSError, UnrainError):
        folder().mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder(), suffix=".new")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(value, file, indent=1)
            os.replace(temporary, folder() / f"{kind}-{key}.json")
        except OSError:
            os.unlink(temporary)
