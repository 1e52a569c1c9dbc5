"""What an evaluation found, and its CSV, JSON and HTML files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write
from .flicker import Flicker


@dataclass(frozen=True)
class Row:
    """One picture: its metrics before (`rainy`) and after (`output`), and the seconds the model took."""

    name: str
    width: int
    height: int
    rainy: Mapping[str, float]
    output: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class Example:
    """The three pictures of a row, uint8 RGB [H, W, 3]; a photo has no clean one."""

    row: Row
    rainy: np.ndarray
    output: np.ndarray
    clean: np.ndarray | None


@dataclass
class Report:
    """Per picture and mean values. `quantise` says how the output became uint8, `definitions` what each metric is."""

    model: str
    data: str
    quantise: str
    metrics: tuple[str, ...]
    definitions: Mapping[str, str]
    rows: list[Row]
    worst: list[Example] = field(default_factory=list, repr=False)
    flicker: Mapping[str, Flicker] | None = None

    @property
    def rainy(self) -> dict[str, float]:
        """The mean of each metric over the rainy pictures."""
        return {key: _mean([row.rainy[key] for row in self.rows]) for key in self.metrics}

    @property
    def output(self) -> dict[str, float]:
        """The mean of each metric over the model's pictures."""
        return {key: _mean([row.output[key] for row in self.rows]) for key in self.metrics}

    @property
    def seconds(self) -> float:
        """The median seconds the model took for a picture."""
        return float(np.median([row.seconds for row in self.rows]))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON: a value that is not finite is its name, "inf" or "nan"."""
        return plain(
            {
                "model": self.model,
                "data": self.data,
                "quantise": self.quantise,
                "pictures": len(self.rows),
                "definitions": dict(self.definitions),
                "mean": {"rainy": self.rainy, "output": self.output, "seconds": self.seconds},
                "flicker": self.flicker and {key: asdict(value) for key, value in self.flicker.items()},
                "rows": [asdict(row) for row in self.rows],
            }
        )

    def write_json(self, path: str | Path) -> None:
        write(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def write_csv(self, path: str | Path) -> None:
        """A line per picture and one for the mean; the metrics of the output, then those of the rainy picture."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(
            ["name", "width", "height", *self.metrics, *(f"rainy_{key}" for key in self.metrics), "seconds"]
        )
        for row in self.rows:
            values = [row.output[key] for key in self.metrics] + [row.rainy[key] for key in self.metrics]
            writer.writerow([row.name, row.width, row.height, *map(_digits, values), f"{row.seconds:.6f}"])
        means = [*self.output.values(), *self.rainy.values()]
        writer.writerow(["mean", "", "", *map(_digits, means), f"{self.seconds:.6f}"])
        write(Path(path), lines.getvalue())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _digits(value: float) -> str:
    return f"{value:.6f}"


def plain(value: Any) -> Any:
    """For JSON, which has no number that is not finite: it becomes its name."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
