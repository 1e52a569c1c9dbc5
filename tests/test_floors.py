"""An import only ever goes down: unrain > export > engine > kernels, and inside engine the same again."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("floors", ROOT / "docs" / "figures" / "floors.py")
figure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(figure)
FLOORS = ("kernels", "engine", "export", "unrain")  # from the lowest up
INSIDE = {
    **{"pictures": 0, "nn": 0, "models": 1, "program": 2, "runtime": 3, "compile": 3, "video": 4, "evaluation": 4},
    **{"benchmark": 4, "training": 5},
}


def floor(name: list[str]) -> str:
    return name[1] if len(name) > 1 and name[1] in FLOORS else "unrain"


def inner(name: list[str]) -> int | None:
    """How high in engine/ it lies; None for the files beside its folders."""
    return INSIDE.get(name[2]) if name[1:2] == ["engine"] and len(name) > 2 else None


def goes_up(file: Path, name: list[str]) -> bool:
    here = ["unrain", *file.relative_to(ROOT).parts]
    if here[1] == "unrain" or name == ["unrain", "__version__"]:  # the version belongs to the package, not to a floor
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
        for line, name in figure.imports(file)
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


@pytest.mark.parametrize("folder", ["unrain", "engine"])
def test_folders_of_a_floor_import_each_other_in_one_direction(folder):
    assert sorted(name for storey in figure.storeys(folder) for name in storey) == figure.folders(folder)


def test_the_picture_shows_what_stands_in_the_code():
    assert figure.PICTURE.read_text(encoding="utf-8") == figure.drawn(), "python docs/figures/floors.py"
