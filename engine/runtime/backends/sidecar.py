"""An engine file and the sidecar beside it: what it was built from and for, and the proof that it is whole.

`srn.engine` has the sidecar `srn.engine.json`. An engine holds code that the GPU runs, so one without a sidecar, or one
whose bytes are not those the sidecar vouches for, is not loaded. This guards against damage and mix-ups; whoever can
replace both files can replace the program too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...errors import UnrainError

FORMAT = 1
LARGEST = 2**24  # bytes of a sidecar; a real one has some ten thousand
WORDS = ("model", "weights", "precision", "library", "version", "sha256")


def sidecar_of(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def complete(description: dict[str, Any], engine: bytes) -> str:
    """The sidecar's text: the description, and what proves that the engine is this one."""
    proof = {"format": FORMAT, "bytes": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
    return json.dumps(description | proof, indent=1, sort_keys=True, allow_nan=False)


def read(engine: Path) -> dict[str, Any]:
    """What the sidecar says, after checks on what others rely on."""
    path = sidecar_of(engine)
    again = "export the engine again"
    try:
        if path.stat().st_size > LARGEST:
            raise UnrainError(f"{path} is too long for a sidecar; {again}")
        found = json.loads(path.read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UnrainError(f"{engine} is not loaded: its sidecar {path.name} cannot be read ({why}); {again}") from error
    except (ValueError, RecursionError):
        raise UnrainError(f"{path} is no JSON, or only a part of it; {again}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UnrainError(f"{path} is no sidecar of format {FORMAT}; {again}")
    targets = found.get("targets")
    named = isinstance(targets, list) and all(isinstance(each, str) for each in targets)
    wrong = [word for word in WORDS if not isinstance(found.get(word), str)]
    wrong += [] if named else ["targets"]
    wrong += [] if type(found.get("bytes")) is int else ["bytes"]
    if wrong:
        raise UnrainError(f"{path} does not say {', '.join(wrong)}; {again}")
    return found


def read_engine(engine: Path, **expected: Any) -> bytes:
    """The engine's bytes, when its sidecar is there, matches them, and says what is expected.

    expected  by its name in the sidecar what an entry must be, such as `weights`; `target` must be among the targets.
              None asks for nothing.
    """
    description = read(engine)
    for name, value in expected.items():
        found = description["targets"] if name == "target" else [description.get(name)]
        if value is not None and value not in found:
            said = " and ".join(map(_short, found))
            raise UnrainError(f"{engine} was built for {name} {said}, this is {_short(value)}; export it again for it")
    try:
        data = engine.read_bytes()
    except OSError as error:
        raise UnrainError(f"{engine} cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(data) != description["bytes"]:
        raise UnrainError(
            f"{engine} has {len(data):,} bytes, its sidecar says {description['bytes']:,}: it is not whole; "
            "export it again"
        )
    if hashlib.sha256(data).hexdigest() != description["sha256"]:
        raise UnrainError(f"{engine} is not the file that its sidecar describes (SHA-256); export it again")
    return data


def _short(value: Any) -> str:
    """As much of a hash as tells it from others."""
    text = str(value)
    return text if len(text) < 40 else text[:12]
