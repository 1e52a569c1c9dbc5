"""Optional packages: whether they are here, and which extra brings them."""

from __future__ import annotations

from importlib.util import find_spec


def missing(extra: str, *packages: str) -> str | None:
    """Why a backend that needs these packages cannot run, or None."""
    absent = [package for package in packages if find_spec(package) is None]
    if not absent:
        return None
    plural = "s are" if len(absent) > 1 else " is"
    return f"the package{plural} not installed ({', '.join(absent)}): pip install 'unrain[{extra}]'"
