"""The picture of the floors, from the imports that stand in the code.

python docs/figures/floors.py             draw floors.svg
python docs/figures/floors.py --check     exit with 1 where it shows something else
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_suffix(".svg")
FLOORS = {  # from the highest down; what is said of those whose folders are not drawn
    "unrain": None,
    "export": "ONNX, TensorRT, programs, packages, cubins, server folders",
    "engine": None,
    "kernels": "one folder per operation: reference, C++, Triton, CUDA; one registry",
    "csrc": "C++ and CUDA without torch and without Python",
}
WIDTH, LEFT, HIGH, GAP = 760, 150, 34, 10


def imports(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and full name of everything of ours that a file imports, wherever in the file it does so."""
    parts = file.relative_to(ROOT).parts
    package = list(parts[:-1]) if parts[0] == "unrain" else ["unrain", *parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, each.name] for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name.split(".") for each in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name[0] == "unrain")


def folders(floor: str) -> list[str]:
    return sorted(path.parent.name for path in (ROOT / floor).glob("*/__init__.py"))


def storeys(floor: str) -> list[list[str]]:
    """The folders of a floor, highest first: each stands above all that it imports. A circle is an error."""
    names, prefix = folders(floor), ["unrain"] if floor == "unrain" else ["unrain", floor]
    below = {
        name: {
            found[len(prefix)]
            for file in (ROOT / floor / name).rglob("*.py")
            for _, found in imports(file)
            if found[: len(prefix)] == prefix and len(found) > len(prefix) and found[len(prefix)] in names
        }
        - {name}
        for name in names
    }
    found: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(names):
        storey = [name for name in names if name not in placed and below[name] <= placed]
        if not storey:
            raise SystemExit(f"a circle of imports in {floor}/: {', '.join(sorted(set(names) - placed))}")
        found.insert(0, storey)
        placed |= set(storey)
    return found


def drawn() -> str:
    shapes, top = [], 16
    for floor, purpose in FLOORS.items():
        rooms = [] if purpose else storeys(floor)
        height = max(1, len(rooms)) * (HIGH + 8) + 8
        shapes.append(f'<rect x="20" y="{top}" width="640" height="{height}" rx="5" class="floor"/>')
        shapes.append(f'<text x="34" y="{top + height // 2 + 5}" class="name">{floor}/</text>')
        for number, storey in enumerate(rooms):
            y, width = top + 8 + number * (HIGH + 8), (496 - 8 * (len(storey) - 1)) // len(storey)
            for place, name in enumerate(storey):
                x = LEFT + place * (width + 8)
                shapes.append(f'<rect x="{x}" y="{y}" width="{width}" height="{HIGH}" rx="4" class="room"/>')
                shapes.append(f'<text x="{x + 12}" y="{y + 22}">{name}/</text>')
        if not rooms:
            shapes.append(f'<text x="{LEFT}" y="{top + height // 2 + 5}">{purpose}</text>')
        top += height + GAP
    arrow = f"M690 24 V{top - 20} M690 {top - 16} l-6 -12 h12 z"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" aria-labelledby="t d">
<title id="t">The floors of unrain</title>
<desc id="d">From top to bottom: {", ".join(FLOORS)}. Imports only go down. Made by docs/figures/floors.py.</desc>
<style>text {{ font: 14px sans-serif; fill: #12263a }} .name {{ font-weight: bold }}
.floor {{ fill: #e6eef6; stroke: #35506b }} .room {{ fill: #fff; stroke: #35506b; stroke-width: 0.8 }}</style>
<rect width="{WIDTH}" height="{top}" fill="#fff"/>
{chr(10).join(shapes)}
<path d="{arrow}" stroke="#35506b" fill="#35506b"/>
<text x="704" y="{top // 2}" transform="rotate(90 704 {top // 2})" text-anchor="middle">imports go down</text>
</svg>
"""


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(PICTURE.read_text(encoding="utf-8") != drawn())
    PICTURE.write_text(drawn(), encoding="utf-8")
