"""What a session of pytest measured, and one JSON file per suite of it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from case import Outcome, is_ours

from unrain.engine.benchmark import limits, results
from unrain.engine.benchmark.limits import Limits


class Book:
    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], dict[str, Outcome]] = {}
        self.sittings: dict[tuple[str, str], dict[str, Outcome]] = {}  # of those that come back to a case
        self.limits: dict[str, Limits] = {}  # by device, the best that was seen
        self._devices: dict[str, str] = {}  # by suite
        self._entries: dict[str, list[tuple[str, str, Outcome, dict[str, Any]]]] = defaultdict(list)

    def look(self, device: str) -> None:
        """Measures what the machine can do, before and after each race: a busy moment shows less."""
        known = self.limits.get(device)
        self.limits[device] = known.or_better(limits.glimpse(device, known)) if known else limits.measured(device)

    def add(self, suite: str, case: str, contender: str, outcome: Outcome, device: str, **about: Any) -> None:
        self._devices[suite] = device
        self._entries[suite].append((case, contender, outcome, {"ours": is_ours(contender), **about, **outcome.extra}))

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """By suite, against the limits as they are known by now."""
        return {suite: [self._row(suite, *entry) for entry in entries] for suite, entries in self._entries.items()}

    def _row(self, suite: str, case: str, contender: str, outcome: Outcome, about: dict[str, Any]) -> dict[str, Any]:
        reason = outcome.absent or (f"wrong: {outcome.wrong}" if outcome.wrong else None)
        bound = self.limits[self._devices[suite]]
        return results.row(case, contender, outcome.samples, bound, reason=reason, **about)

    def write(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for suite, rows in self.rows().items():
            device, path = self._devices[suite], folder / f"{suite}.json"
            path.write_text(json.dumps(results.document(suite, device, self.limits[device], rows), indent=1) + "\n")
            written.append(path)
        return written
