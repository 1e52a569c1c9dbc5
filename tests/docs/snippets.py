"""The runnable parts of a Markdown page, in order: ```python and ```sh blocks.

A page may say what its snippets need, where a reader does not see it:

    <!-- before: x = torch.rand(1, 3, 32, 48) -->     Python that is run before the next block
    <!-- not run: it would train for hours -->        the next block is only read, and this is why
    <!-- new: kernels/x/reference.py -->              the next block is a whole file, see test_how_to.py
    <!-- insert: kernels/registry.py | "ssim", -->    the next block goes before the line with that text
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PIECE = re.compile(
    r"^<!-- (?P<kind>before|not run|new|insert): (?P<note>.*?) -->$|^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str
    line: int  # where the code begins in the page
    before: str  # Python to run first
    not_run: str | None  # why it is only to be read


def snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    before, not_run = "", None
    for piece in _PIECE.finditer(text):
        if piece["kind"] == "before":
            before += piece["note"] + "\n"
        elif piece["kind"] == "not run":
            not_run = piece["note"]
        elif piece["kind"]:
            not_run = f"{piece['kind']}: {piece['note']}"
        else:
            line = text.count("\n", 0, piece.start()) + 2
            yield Snippet(piece["language"], piece["code"], line, before, not_run)
            before, not_run = "", None


def commands(code: str) -> list[str]:
    """The commands of a shell block: one a line, a backslash goes on, comments dropped."""
    lines = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in code.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]
