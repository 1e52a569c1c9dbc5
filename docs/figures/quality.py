"""The README's table of quality, from the cards of the shipped weights, what was measured, and scores that tests check.

unrain eval all SET... --json >docs/figures/quality.json    measure: what stands there goes before what a card says
python docs/figures/quality.py            write it
python docs/figures/quality.py --check    exit with 1 where the README says something else
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
MEASURED = Path(__file__).with_suffix(".json")
BEGIN, END = "<!-- quality:begin -->", "<!-- quality:end -->"
# Rows of a card's tables that are shown, by how they begin: what they are called here.
SHOWN = {
    "dry": "photographs held out of training, dry",
    "light rain": "the same in light generated rain",
    "middling rain": "in middling rain",
    "heavy rain": "in heavy rain",
    "Rain100L": "Rain100L",
}
# tests/models/test_published.py measures these; the paper's are from its tables.
PUBLISHED = (
    ("`srn`, the authors' Rain100L checkpoint, T = 6", "Rain100L, 100 pairs of 480 x 320", "26.90", "37.46", "37.48"),
    ("`brn`, the authors' Rain100L checkpoint, T = 8", "the same", "26.90", "38.16", "38.16"),
)


def table() -> str:
    sets = json.loads(MEASURED.read_text(encoding="utf-8"))["sets"] if MEASURED.is_file() else {}
    rows = [("weights", "pictures", "before", "after", "paper"), ("---",) * 5]
    for card in sorted((ROOT / "engine" / "weights").glob("*.md")):
        weights = f"[`{card.stem}` as shipped]({card.relative_to(ROOT)})"
        said = [row for row in written(card.read_text(encoding="utf-8")) if row[0] not in sets]
        for label, before, after in (*measured(sets, card.stem), *said):
            rows.append((weights, label, before or "identical", after, ""))
            weights = ""
    rows += PUBLISHED
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measured(sets: dict[str, Any], name: str) -> list[tuple[str, str, str]]:
    """(pictures, before, after) of the sets on which these weights were measured; of photos it is their NIQE."""
    found = []
    for data, one in sets.items():
        if name in one["weights"]:
            key = next(iter(one["rainy"]))
            label = data if key == "psnr_y" else f"{data}, {key} (less is better)"
            before, after = (
                value if value == "inf" else f"{value:.2f}" for value in (one["rainy"][key], one["weights"][name][key])
            )
            found.append((label, "" if before == "inf" else before, after))
    return found


def written(card: str) -> list[tuple[str, str, str]]:
    """(pictures, Y-PSNR before, after) of the rows of the card's tables that are shown; before is empty where dry."""
    found = []
    for line in card.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = next((name for name in SHOWN if cells[0] == name or cells[0].startswith(f"{name} (")), None)
        if line.startswith("|") and name and len(cells) > 2 and re.fullmatch(r"\d+\.\d+", cells[2]):
            found.append((SHOWN[name], cells[1], cells[2]))
    return found


def main() -> int:
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    new = f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"
    if "--check" in sys.argv[1:]:
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
