"""The roofline: what the machine allows at each number of operations per byte, and what was reached under it."""

from __future__ import annotations

from typing import Any

from ..errors import UnrainError
from .chart import Chart, Series


def roofline(found: dict[str, Any], title: str | None = None) -> Chart:
    """Of one file of results, every timed row that counts operations and bytes.

    A network's bytes are those its convolutions move one by one; one that fuses them stands to the right of its dot.
    """
    copy, rates = found["limits"]["copy_bytes_per_second"], found["limits"]["operations_per_second"]
    layers = found.get("layer_traffic")
    reached: dict[str, list[tuple[float, float]]] = {}
    notes = []
    for row in found["rows"]:
        traffic = layers or row.get("traffic")
        if not (row["median_ms"] and traffic and row.get("operations")):
            continue
        point = row["operations"] / traffic, row["operations"] / row["median_ms"] * 1e3
        reached.setdefault("unrain" if row["ours"] else "others", []).append(point)
        if layers:
            notes.append((*point, row["contender"]))
        elif row["contender"] == "unrain":
            backward = " and backward" if "backward" in row["case"] else ""
            notes.append((*point, row["case"].split(" ")[0] + backward))
    if not reached:
        raise UnrainError("there is no timed row that counts its operations and bytes")
    intensities = [x for points in reached.values() for x, _ in points]
    left, right = min(intensities) / (8 if layers else 2), max(*intensities, max(rates.values()) / copy) * 4
    top = max(rates.values())
    roofs = [
        Series("limit, memory", [(left, copy * left), (top / copy, top)], dots=False, dashed=True),
        *(
            Series(f"limit, {name}", [(max(rate / copy, left), rate), (right, rate)], dots=False, dashed=True)
            for name, rate in rates.items()
        ),
    ]
    dots = [Series(name, reached[name], line=False) for name in ("unrain", "others") if name in reached]
    return Chart(
        title or f"Roofline, {found['suite']}, {found['facts']['cpu']}",
        "operations per byte",
        "operations per second",
        [*dots, *roofs],
        x_log=True,
        y_log=True,
        notes=notes,
    )
