"""Results as rows of plain JSON types, the same for every suite and for `unrain bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UnrainError
from . import conditions
from .limits import Limits
from .timing import spread

FORMAT = 1
PAST = "past it"  # less moves or is done than was counted: it stays in the caches, or a stage has nothing to start from


def row(
    case: str,
    contender: str,
    samples: list[float],
    limits: Limits,
    *,
    ours: bool,
    operations: float = 0,
    traffic: float = 0,
    precision: str = "fp32",
    reason: str | None = None,
    goal: float | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """One contender. Without samples `reason` says why; `limit_ms` is what the machine would need at the very least."""
    least = limits.milliseconds(operations, traffic, precision)
    found = times(samples)
    return {
        "case": case,
        "contender": contender,
        "ours": ours,
        "precision": precision,
        "reason": reason,
        **found,
        "goal": goal,
        "operations": int(operations),
        "traffic": int(traffic),
        "limit_ms": round(least, 5) if least else None,
        "limit_share": round(least / found["median_ms"], 4) if least and samples else None,
        "bound": limits.bound(operations, traffic, precision) if least else None,
        **extra,
    }


def percent(share: float | None) -> str:
    """A share of the limit in words: nothing does more than all that can be done, so such a figure is none."""
    if share is None:
        return ""
    if share > 1:
        return PAST
    return f"{100 * share:.0f}%" if share >= 0.005 else "under 1%"


def times(samples: list[float]) -> dict[str, Any]:
    if not samples:
        return {"median_ms": None, "low_ms": None, "high_ms": None, "least_ms": None, "rounds": 0}
    found = spread(samples)
    return {
        "median_ms": round(found.median, 4),
        "low_ms": round(found.low, 4),
        "high_ms": round(found.high, 4),
        "least_ms": round(found.least, 4),
        "rounds": found.rounds,
    }


def document(suite: str, device: str, limits: Limits, rows: list[dict[str, Any]], **about: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "suite": suite,
        **about,
        "device": device,
        "facts": conditions.facts(device),
        "limits": {"copy_bytes_per_second": limits.copy, "operations_per_second": limits.matrix},
        "rows": rows,
    }


def read(path: Path) -> dict[str, Any]:
    """A file of results, or a folder of several runs of one suite, each row as the quietest of them had it."""
    return _quietest(path) if path.is_dir() else _read_one(path)


def _quietest(folder: Path) -> dict[str, Any]:
    """Load only ever adds to a time, so the least median is the best; the least round of every run is kept beside it.
    What was wrong in any run stays wrong."""
    runs = [_read_one(path) for path in sorted(folder.rglob("*.json"))]
    if not runs:
        raise UnrainError(f"{folder} holds no results (*.json)")
    suites = sorted({f"{each.get('suite')} of {each['facts'].get('machine')}" for each in runs})
    if len(suites) > 1:
        raise UnrainError(f"{folder} holds results of several suites or machines: {', '.join(suites)}")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in (row for each in runs for row in each["rows"]):
        found.setdefault((row["case"], row["contender"]), []).append(row)
    rows = [{**min(same, key=_effort), "least_of_runs": _leasts(same)} for same in found.values()]
    return {**runs[-1], "rows": rows}


def _leasts(rows: list[dict[str, Any]]) -> list[float]:
    return [row["least_ms"] for row in rows if row["median_ms"]]


def _effort(row: dict[str, Any]) -> tuple[bool, float]:
    return not (row.get("reason") or "").startswith("wrong"), row["median_ms"] or float("inf")


def _read_one(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UnrainError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnrainError(f"{path} is no JSON file: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise UnrainError(f"{path} holds no results of a benchmark: it has no rows")
    if found.get("format") != FORMAT:
        raise UnrainError(f"{path} has format {found.get('format')!r}, this version reads {FORMAT}")
    if not isinstance(found.get("facts"), dict):
        raise UnrainError(f"{path} does not say what machine it is of: it has no facts")
    if not all(isinstance(each, dict) and {"case", "contender", "median_ms"} <= each.keys() for each in found["rows"]):
        raise UnrainError(f"{path} has a row without case, contender or median_ms")
    return found
