"""An import only ever goes down: unrain > export > engine > kernels, and inside engine the same again."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("kernels", "engine", "export", "unrain")  # from the lowest up
INSIDE = {
    **{"nn": 0, "models": 1, "program": 2, "runtime": 3, "video": 4, "evaluation": 4, "benchmark": 4, "training": 5},
    **{"cli": 6, "page": 6, "demo": 6},
}


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


def floor(name: list[str]) -> str:
    return name[1] if len(name) > 1 and name[1] in FLOORS else "unrain"


def inner(name: list[str]) -> int | None:
    """How high in engine/ it lies; None for the files beside its folders."""
    return INSIDE.get(name[2]) if name[1:2] == ["engine"] and len(name) > 2 else None


def goes_up(file: Path, name: list[str]) -> bool:
    here = ["unrain", *file.relative_to(ROOT).parts]
    if here[1] == "unrain" or name == ["unrain", "__version__"]:  # the version belongs to the package, not to a floor
        return False
    if here[1:3] == ["engine", "cli"] and floor(name) == "export":  # the command `unrain export`
        return False
    above, mine = inner(name), inner(here)
    inside = above is not None and mine is not None and here[1] == "engine" and above > mine
    return FLOORS.index(floor(name)) > FLOORS.index(here[1]) or inside


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_go_down(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    upward = [
        f"{file.relative_to(ROOT)}:{line} imports {'.'.join(name)}"
        for file in files
        for line, name in imports(file)
        if goes_up(file, name)
    ]
    assert files and not upward, "\n".join(upward)


@pytest.mark.parametrize(
    ("file", "name", "up"),
    [
        ("kernels/ssim/native.py", "unrain.engine.errors", True),
        ("kernels/ssim/native.py", "unrain.kernels.native", False),
        ("engine/runtime/engine.py", "unrain.export.files", True),
        ("engine/runtime/engine.py", "unrain.engine.video.files", True),
        ("engine/video/files.py", "unrain.engine.runtime.Engine", False),
        ("engine/nn/cells.py", "unrain.Engine", True),
        ("export/package.py", "unrain.engine.runtime", False),
    ],
)
def test_the_rule_tells_up_from_down(file, name, up):
    assert goes_up(ROOT / file, name.split(".")) is up


def test_every_folder_of_engine_has_its_place():
    folders = {path.parent.name for path in (ROOT / "engine").glob("*/__init__.py")}
    assert folders <= INSIDE.keys() | {"weights"}
