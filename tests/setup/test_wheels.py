"""What the compiled part asks of a system, that it needs no Python, and the wheels that `make wheels` left in dist/."""

import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from unrain.kernels import native

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("load_native.c")
LIBRARY = native.library_file("_native")
TOOLS = ROOT / "build" / "wheel-tools" / "bin"
MACHINES = [(re.search(r"manylinux_\d+_\d+_(\w+)", path.stem), path) for path in ROOT.glob("dist/*.whl")]
WHEELS = {found[1] if found else "any": path for found, path in MACHINES}
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11)}  # what manylinux_2_28 has
ELSEWHERE = {"aarch64": ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"])}

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="the compiled part is not there")
needs_wheels = pytest.mark.skipif(not WHEELS, reason="there is no wheel in dist/: make wheels")


def asked_for(library: Path) -> dict[str, tuple[int, ...]]:
    """The newest version of each system library's symbols."""
    listing = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
    found: dict[str, tuple[int, ...]] = {}
    for name, version in re.findall(r"\b(GLIBC|GLIBCXX|CXXABI)_([0-9.]+)", listing):
        found[name] = max(found.get(name, ()), tuple(map(int, version.split("."))))
    return found


@needs_library
@pytest.mark.skipif(shutil.which("objdump") is None, reason="there is no objdump on this machine")
def test_the_library_asks_for_no_newer_system_than_manylinux_2_28():
    found = asked_for(LIBRARY)
    assert found and all(version <= NEWEST[name] for name, version in found.items()), found


def run_without_python(library: Path, machine: str, folder: Path) -> str:
    compiler, runner = ("gcc", []) if machine == platform.machine() else ELSEWHERE[machine]
    for tool in (compiler, *runner[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} on this machine")
    program = folder / "load_native"
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", str(PROGRAM), "-o", str(program), "-ldl", "-lm"]
    subprocess.run(command, check=True)
    done = subprocess.run([*runner, str(program), str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_library
@pytest.mark.skipif(sys.platform != "linux", reason="it is linked for Linux")
def test_the_library_runs_its_tiers_without_python(tmp_path):
    lines = run_without_python(LIBRARY, platform.machine(), tmp_path).splitlines()
    assert [line.partition(":")[0] for line in lines] == native.tiers()


@needs_wheels
def test_there_is_a_wheel_for_every_python_and_every_platform():
    assert "any" in WHEELS and platform.machine() in WHEELS
    assert all("-py3-none-" in path.name for path in WHEELS.values())
    assert all(path.stat().st_size < 40e6 for path in WHEELS.values())


@needs_wheels
@pytest.mark.parametrize("machine", [each for each in WHEELS if each != "any"])
def test_a_wheel_is_for_old_systems_and_its_library_runs(machine, tmp_path):
    with zipfile.ZipFile(WHEELS[machine]) as archive:
        library = Path(archive.extract("unrain/_native.so", tmp_path))
        assert any(name.endswith("weights/wiper.safetensors") for name in archive.namelist())
    if (TOOLS / "auditwheel").exists():
        # Without the system's libgomp, which is newer, and which is no part of the wheel.
        show = [str(TOOLS / "auditwheel"), "show", "--ldpaths", str(tmp_path), str(WHEELS[machine])]
        said = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        assert int(re.search(rf"manylinux_2_(\d+)_{machine}\"", said)[1]) <= 28, said
    assert "generic: " in run_without_python(library, machine, tmp_path)
