"""The pages "How to add ..." followed literally: what they show goes into a clone, which then builds and passes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from snippets import snippets

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def clone(tmp_path):
    """What git tracks, as it is in the working tree."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


def follow(page: str, clone: Path) -> None:
    """Writes what the page calls new, and puts what it inserts before the lines it names."""
    for snippet in snippets(ROOT / "docs" / page):
        kind, _, note = (snippet.not_run or "").partition(": ")
        if kind == "new":
            (clone / note).parent.mkdir(parents=True, exist_ok=True)
            (clone / note).write_text(snippet.code)
        elif kind == "insert":
            name, _, before = note.partition(" | ")
            lines = (clone / name).read_text().splitlines(keepends=True)
            place = next((index for index, line in enumerate(lines) if before in line), None)
            assert place is not None, f"{page}:{snippet.line}: {name} has no line with {before!r}"
            (clone / name).write_text("".join([*lines[:place], snippet.code, *lines[place:]]))


def build(clone: Path) -> None:
    """C++ beside the Python files, and a package `unrain` whose folders are those of the clone."""
    run(clone, sys.executable, "setup.py", "-q", "build_ext", "--inplace", UNRAIN_CUDA_ARCHS="")
    reasons = json.loads((clone / "unrain" / "_build_info.json").read_text())
    assert reasons["_native"] is None, reasons
    site = clone.parent / "site"  # beside the clone: ruff judges what is inside
    shutil.copytree(clone / "unrain", site / "unrain")
    for floor in ("engine", "kernels", "export", "csrc"):
        (site / "unrain" / floor).symlink_to(clone / floor)


def run(clone: Path, *command: str, **environment: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(clone.parent / "site"), "PYTHONSAFEPATH": "1", **environment}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


def check(clone: Path, *arguments: str, **environment: str) -> None:
    """pytest on the clone's own package, not on the one that is installed here."""
    where = run(clone, sys.executable, "-c", "import unrain; print(unrain.__file__)")
    assert Path(where.strip()).is_relative_to(clone.parent)
    report = run(clone, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, **environment)
    assert " passed" in report and " failed" not in report, report


def test_add_an_op(clone):
    follow("add-an-op.md", clone)
    build(clone)
    check(clone, "tests/kernels", "-k", "soft_threshold and not slow")
    check(clone, "tests/kernels/test_ops.py", "-k", "soft_threshold and triton", TRITON_INTERPRET="1")
    check(clone, "tests/kernels/test_compile.py", "tests/kernels/test_dispatch.py", "-k", "records or info_names")
    code = (
        "from unrain.kernels.triton_aot import compile_kernel, kernels\n"
        "found = [compile_kernel(spec, 87) for spec in kernels(87, ('soft_threshold',))]\n"
        "assert len(found) == 6 and not any(each.spills for each in found)"
    )
    run(clone, sys.executable, "-c", code)
    run(clone, sys.executable, "-m", "ruff", "check", ".")
    run(clone, sys.executable, "-m", "ruff", "format", "--check", "kernels", "tests/kernels", "export")


def test_add_a_model(clone):
    follow("add-a-model.md", clone)
    build(clone)
    check(clone, "tests/models/test_catalog.py", "tests/models/test_smoother.py", "-m", "not slow")
    check(clone, "tests/training/test_trainer.py", "tests/export/test_onnx_models.py", "-k", "smoother or both_recipes")
    assert "smoother" in run(clone, sys.executable, "-m", "unrain.cli.main", "models")
    run(clone, sys.executable, "-m", "ruff", "check", ".")
    run(clone, sys.executable, "-m", "ruff", "format", "--check", "engine", "tests/models", "tests/training")
