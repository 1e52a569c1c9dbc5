"""What pip may not change in .venv: `pins.py before FOLDER` writes FOLDER/constraints.txt, `after` follows what it did.

A torch that our own pin brought stays under every pin of constraints.txt. One that somebody else put there (2.8 or
newer: a CUDA build, say) is left as it is, and triton is then the one that this torch asks for. The Makefile runs this
with the interpreter of .venv, before anything is installed there.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
OLDEST = (2, 8)  # what pyproject.toml asks for; what is older is replaced


def before(venv: Path) -> None:
    lines = PINS.read_text().splitlines()
    found = installed("torch")
    if found is not None and release(found) >= OLDEST and not ours(found, venv):
        lines = [line for line in lines if name(line) != "torch"]
        if asks_for_triton() or installed("triton") is not None:
            lines = [line for line in lines if name(line) != "triton"]
        lines.append(f"torch=={found}")
    (venv / "constraints.txt").write_text("\n".join(lines) + "\n")


def after(venv: Path) -> None:
    """Notes which torch is ours: it stays so when the pin moves on."""
    found = installed("torch")
    if found is not None and pin() in (venv / "constraints.txt").read_text().splitlines():
        own_torch(venv).write_text(found + "\n")


def ours(found: str, venv: Path) -> bool:
    """It came by our pin, of this version or an earlier one. A build of the pinned version (+cpu, +cu130) needs no
    distinction: the pin fits it."""
    noted = own_torch(venv)
    return found.split("+")[0] == pin().split("==")[1] or (noted.exists() and noted.read_text().strip() == found)


def own_torch(venv: Path) -> Path:
    return venv / ".own-torch"


def pin() -> str:
    return next(line for line in PINS.read_text().splitlines() if name(line) == "torch")


def name(line: str) -> str:
    return re.split(r"[=<>!~;\s]", line, maxsplit=1)[0]


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def asks_for_triton() -> bool:
    return any(re.match(r"triton\b", each) for each in distribution("torch").requires or [])


if __name__ == "__main__":
    step, folder = sys.argv[1:]
    {"before": before, "after": after}[step](Path(folder))
