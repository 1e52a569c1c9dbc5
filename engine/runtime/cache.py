"""A small store on disk for what was measured: one JSON file per question, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...kernels.kept import cache_folder, replacing
from ..errors import UnrainError


def folder() -> Path:
    """The user's cache folder for unrain. Raises an error for a user who has none."""
    try:
        return cache_folder()
    except RuntimeError as error:  # neither a HOME nor an entry in the list of users, as in many a container
        raise UnrainError("this user has no home folder to keep anything in; UNRAIN_CACHE names a folder") from error


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
    """A folder that cannot be written to costs the next run a trial."""
    with suppress(OSError, UnrainError), replacing(folder() / f"{kind}-{key}.json") as part:
        part.write_text(json.dumps(value, indent=1))
