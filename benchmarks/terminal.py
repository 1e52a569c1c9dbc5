"""What a session of pytest prints of its rows at its end."""

from __future__ import annotations

from typing import Any

from unrain.engine.benchmark import results

Row = dict[str, Any]


def lines(rows: list[Row]) -> list[str]:
    """A line for each contender of a case, and one that says why where there is no time of ours to compare with."""
    ours = [row for row in rows if row["ours"]]
    timed = next((row["median_ms"] for row in ours if row["median_ms"]), None)
    found = [line(row, timed) for row in rows]
    if timed is None and any(row["median_ms"] for row in rows):
        found.append(f"no times: {'nothing of ours has a time' if ours else 'no row of ours was asked for'}")
    return found


def line(row: Row, ours: float | None) -> str:
    """One contender's line, beside the time of ours if it has one: never a time for a result that is wrong."""
    name = f"{row['contender']:42}"
    if row["median_ms"] is None:
        return f"{name} {row['reason']}"
    times = f"  {row['median_ms'] / ours:6.2f} x" if ours else ""
    way = " (Winograd's operations)" if row.get("algorithm") else ""
    share = results.percent(row["limit_share"])
    bound = f"  {share:>4} of the limit by {row['bound']}{way}" if share.endswith("%") else ""
    if share == results.PAST:
        bound = f"  past the limit by {row['bound']}, in the caches"
    aim = ""
    if row["goal"] is not None and ours:
        aim = f"  goal {row['goal']:.2f}: {'reached' if row['median_ms'] / ours >= row['goal'] else 'missed'}"
    return f"{name} {row['median_ms']:9.3f} ms{times}{bound}{aim}"
