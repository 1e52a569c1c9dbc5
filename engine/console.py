"""What every command prints with: tables and JSON on stdout, complaints and progress on stderr, no colour in a pipe."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


def complain(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    print("unrain:", " ".join(message.split()), file=sys.stderr)


def print_json(answer: Any) -> None:
    print(json.dumps(answer, indent=2, allow_nan=False))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> None:
    """A table on stdout; columns whose title begins with a space hold numbers and are set to the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.startswith(" ") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A pipe has no width of its own: rich would fold every row at 80 columns.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False).print(table)


def progress_bar() -> Progress:
    """A bar with count and remaining time on stderr; silent when stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
