"""Installs into throw-away places: with and without a compiler, as a wheel and editable."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = {"UNRAIN_CUDA_ARCHS": "90"}  # one architecture is enough to see that a CUDA half is built
NO_COMPILER = {"CC": "/nowhere/cc", "CXX": "/nowhere/c++", "PATH": os.path.dirname(sys.executable)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what git tracks, so that no build touches the checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            target = tmp_path / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return tmp_path / "tree"


def pip(*arguments: str, python: str = sys.executable, **environment: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def wheel(tree: Path, **environment: str) -> zipfile.ZipFile:
    pip("wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(tree / "out"), str(tree), **environment)
    [path] = (tree / "out").glob("*.whl")
    return zipfile.ZipFile(path)


def compiled(names: list[str], part: str) -> bool:
    return any(name.startswith(f"unrain/{part}.") for name in names)


def test_a_wheel_holds_the_compiled_parts_and_the_sources_for_cupy(tree):
    archive = wheel(tree, **SMALL)
    names = archive.namelist()
    reasons = json.loads(archive.read("unrain/_build_info.json"))
    assert reasons["_native"] is None and compiled(names, "_native")
    assert "-py3-none-linux_" in archive.filename, "one wheel for every Python"
    assert compiled(names, "_native_cuda") == (reasons["_native_cuda"] is None)
    assert {"unrain/csrc/cuda/kernels.cuh", "unrain/csrc/pixel/frames.h", "unrain/csrc/simd/scalar.h"} <= set(names)


def test_without_a_compiler_the_wheel_is_python_and_says_why(tree):
    archive = wheel(tree, **NO_COMPILER)
    names = archive.namelist()
    reasons = json.loads(archive.read("unrain/_build_info.json"))
    assert archive.filename.endswith("-py3-none-any.whl")
    assert reasons["_native"] and not compiled(names, "_native")
    assert "/nowhere" in reasons["_native"], reasons
    assert reasons["_native_cuda"] and not compiled(names, "_native_cuda")


def test_by_wish_the_wheel_is_pure_python(tree):
    archive = wheel(tree, UNRAIN_NO_NATIVE="1")
    assert archive.filename.endswith("-none-any.whl")
    assert not compiled(archive.namelist(), "_native")


def test_an_editable_install_works_and_leaves_nothing_for_git(tree, tmp_path):
    """In an environment of its own that sees the packages of this one."""
    venv.create(tmp_path / "env", with_pip=False)
    python = str(tmp_path / "env" / "bin" / "python")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    [packages] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # A .pth file found this way is not obeyed: the checkout's own editable install is not seen.
    (packages / "shared.pth").write_text(here + "\n")
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tree, check=True)
    pip("install", "-q", "--no-build-isolation", "--no-deps", "-e", str(tree), python=python, **SMALL)
    program = (
        "import unrain.kernels as K; from unrain.kernels.native import library_file; "
        "print(K.info()['ssim']['native'], library_file('_native'))"
    )
    done = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state, file = done.stdout.split()
    assert state == "available" and Path(file).is_relative_to(tree)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tree, capture_output=True, text=True, check=True)
    changed = [line for line in status.stdout.splitlines() if not line.startswith("A ")]
    assert not changed, changed
