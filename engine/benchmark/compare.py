"""Two results of one machine: what became slower beyond the noise.

Medians wander on a machine that is shared, so a row of ours counts as slower only when three things agree: its median
and its lower quartile both rose, by more than a tenth and more than the noise explains; and they still rose by that
much relative to the rivals of the same case, which were timed in turns with it and whose code is the same. The noise is
the spread of the rounds, and how far the rivals themselves moved apart between the two results: their code did not
change, so whatever they show is the machine's.

Where each result is of several runs, taken in turns, there is better evidence: the least round of every run. A row
counts as slower when the median of these rose by more than a tenth and hardly any run after was as fast as one before.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import UnrainError

THRESHOLD = 0.10  # less than this is not a regression, however quiet the machine
SIGMAS = 2.0
RUNS = 4  # from so many on each side, the runs themselves show the noise
OVERLAP = 0.15  # the largest share of pairs of runs, one before and one after, that may be the wrong way round


class Change(NamedTuple):
    case: str
    contender: str
    verdict: str  # "slower", "faster", "same", "machine" (the rivals too), "wrong", "gone"
    before: float | None
    after: float | None
    ratio: float | None  # after / before, the milder of median and lower quartile
    drift: float  # of the rivals of the case
    margin: float

    @property
    def regression(self) -> bool:
        return self.verdict in ("slower", "wrong", "gone")


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """A change per row of ours that was timed before."""
    machines = [each["facts"].get("machine") for each in (before, after)]
    if machines[0] != machines[1]:
        raise UnrainError(f"results of two machines cannot be compared: {machines[0]} and {machines[1]}")
    later = {(row["case"], row["contender"]): row for row in after["rows"]}
    pairs = [(row, later.get((row["case"], row["contender"]))) for row in before["rows"] if row["median_ms"]]
    if not any(new for _, new in pairs):
        raise UnrainError("the two results have no timed row in common")
    timed = [(old, new) for old, new in pairs if new and new["median_ms"]]
    overall = _drift(timed) or 1.0
    drifts = {case: _drift(pair for pair in timed if pair[0]["case"] == case) for case in {o["case"] for o, _ in pairs}}
    cases = {row["case"] for row in after["rows"]}
    return [
        _change(old, new, drifts[old["case"]] or overall, _unrest(timed, old.get("bound")))
        for old, new in pairs
        if old["ours"] and old["case"] in cases  # a case that was not run again tells nothing
    ]


def _drift(pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> float | None:
    ratios = [new["median_ms"] / old["median_ms"] for old, new in pairs if not old["ours"]]
    return statistics.median(ratios) if ratios else None


def _unrest(pairs: list[tuple[dict[str, Any], dict[str, Any]]], bound: str | None) -> float:
    """How far the rivals of all cases that wait for the same thing (memory, arithmetic) went apart: 0 is in step.

    By their quartiles, so that one that an unlucky moment moved by half does not hide a fifth in all the others; and
    only when they are five or more.
    """
    moved = [
        math.log(new["median_ms"] / old["median_ms"])
        for old, new in pairs
        if not old["ours"] and old.get("bound") == bound
    ]
    if len(moved) < 5:
        return 0.0
    low, _, high = statistics.quantiles(moved, n=4, method="inclusive")
    return (high - low) / 1.35  # the standard deviation, were they normal


def _change(old: dict[str, Any], new: dict[str, Any] | None, drift: float, unrest: float) -> Change:
    name = old["case"], old["contender"]
    if new is None or not new["median_ms"]:
        wrong = new is not None and (new.get("reason") or "").startswith("wrong")
        return Change(*name, "wrong" if wrong else "gone", old["median_ms"], None, None, drift, 0.0)
    runs = [each.get("least_of_runs", []) for each in (old, new)]
    if min(map(len, runs)) >= RUNS:
        return Change(*name, _by_runs(*runs), *map(statistics.median, runs), _rise(*runs), 1.0, THRESHOLD)
    ratios = [new[key] / old[key] for key in ("median_ms", "low_ms")]
    margin = THRESHOLD + SIGMAS * (_error(old) ** 2 + _error(new) ** 2 + unrest**2) ** 0.5
    slower = min(*ratios, *(each / drift for each in ratios))
    faster = max(*ratios, *(each / drift for each in ratios))
    if slower > 1 + margin:
        verdict = "slower"
    elif faster < 1 / (1 + margin):
        verdict = "faster"
    else:
        verdict = "machine" if min(ratios) > 1 + margin else "same"
    return Change(*name, verdict, old["median_ms"], new["median_ms"], min(ratios), drift, margin)


def _by_runs(before: list[float], after: list[float]) -> str:
    as_fast = sum(b <= a for a in before for b in after) / (len(before) * len(after))
    if _rise(before, after) > 1 + THRESHOLD and as_fast <= OVERLAP:
        return "slower"
    if _rise(after, before) > 1 + THRESHOLD and as_fast >= 1 - OVERLAP:
        return "faster"
    return "same"


def _rise(before: list[float], after: list[float]) -> float:
    return statistics.median(after) / statistics.median(before)


def _error(row: dict[str, Any]) -> float:
    """The relative standard error of a median, from the quartiles."""
    rounds = max(row.get("rounds") or 1, 1)
    return 1.25 * (row["high_ms"] - row["low_ms"]) / 1.35 / row["median_ms"] / rounds**0.5
