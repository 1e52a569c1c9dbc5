"""`unrain models`: every network by name."""

from typing import Annotated, Any

import typer

from ..engine.console import print_json, print_table
from ..engine.models import CATALOG, WEIGHTS


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """List every network: parameters, stages, and whether weights come with it."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "parameters": entry.parameters,
            "stages": entry.stages,
            "weights": (WEIGHTS / f"{name}.safetensors").is_file(),
            "summary": entry.summary,
            "paper": entry.paper,
        }
        for name, entry in CATALOG.items()
    ]
    if as_json:
        print_json(rows)
        return
    _print_table("Ready to run, their weights come with unrain", [row for row in rows if row["weights"]])
    _print_table("To train, or for weights of yours", [row for row in rows if not row["weights"]])
    print("Where they are from:")
    for paper in dict.fromkeys(row["paper"] for row in rows):
        first, *others = (row["name"] for row in rows if row["paper"] == paper)
        print(f"  {first}{f' and {len(others)} like it' if others else ''}: {paper}")
    print("\nunrain run rainy.jpg -o dry.png -n NAME takes one of them.")


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(title)
    print_table(
        ["name", " parameters", " stages", "what it is"],
        ([row["name"], f"{row['parameters']:,}", row["stages"] or "", row["summary"]] for row in rows),
    )
