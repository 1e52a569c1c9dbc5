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


def folder() -> Path:
    """UNRAIN_CACHE, or the user's cache folder."""
    chosen = os.environ.get("UNRAIN_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "unrain"


def key_of(**parts: Any) -> str:
    """One short name for everything that the answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def read(kind: str, key: str) -> dict[str, Any] | None:
    """What was stored, or None: not there, not readable and not JSON are the same to the caller, who measures again."""
    try:
        found = json.loads((folder() / f"{kind}-{key}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(kind: str, key: str, value: dict[str, Any]) -> None:
    """Stores it under a temporary name and renames; a folder that cannot be written to costs the next run a trial."""
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder(), suffix=".new")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(value, file, indent=1)
            os.replace(temporary, folder() / f"{kind}-{key}.json")
        except OSError:
            os.unlink(temporary)
