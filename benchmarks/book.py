"""What a session of pytest measured, and one JSON file per suite of it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from case import Outcome, is_ours

from unrain.engine.benchmark import results
from unrain.engine.benchmark.limits import Limits


class Book:
    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], dict[str, Outcome]] = {}
        self.sittings: dict[tuple[str, str], dict[str, Outcome]] = {}  # of those that come back to a case
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)  # by suite
        self._conditions: dict[str, tuple[str, Limits]] = {}

    def add(self, suite: str, case: str, contender: str, outcome: Outcome, limits: Limits, device: str, **about: Any):
        reason = outcome.absent or (f"wrong: {outcome.wrong}" if outcome.wrong else None)
        about = {"ours": is_ours(contender), **about, **outcome.extra}
        self.rows[suite].append(results.row(case, contender, outcome.samples, limits, reason=reason, **about))
        self._conditions[suite] = device, limits

    def write(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for suite, rows in self.rows.items():
            path = folder / f"{suite}.json"
            path.write_text(json.dumps(results.document(suite, *self._conditions[suite], rows), indent=1) + "\n")
            written.append(path)
        return written
