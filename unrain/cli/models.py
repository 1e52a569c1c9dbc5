"""`unrain models`: every network by name."""

from typing import Annotated

import typer

from ..engine.console import print_json, print_table
from ..engine.models import CATALOG, WEIGHTS


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """List every network: parameters, stages, and whether weights come with it."""
    rows = [
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
    print_table(
        ["name", " parameters", " stages", "weights", "what it is"],
        (
            [
                row["name"],
                f"{row['parameters']:,}",
                row["stages"] or "",
                "yes" if row["weights"] else "",
                row["summary"],
            ]
            for row in rows
        ),
    )
    for paper in dict.fromkeys(str(row["paper"]) for row in rows):
        names = [str(row["name"]) for row in rows if row["paper"] == paper]
        print(f"{', '.join(names)}: {paper}")
