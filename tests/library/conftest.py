"""libunrain as CMake builds and installs it, once per session, and programs to run in it."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from setuptools import Distribution

import unrain
from unrain.csrc import build

sys.path.insert(0, str(Path(__file__).parent))  # for c_library
from c_library import ROOT, STRICT, Library, run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A top folder in which `cmake -S csrc -B build/libunrain` takes what the Python package has compiled already."""
    missing = [tool for tool in ("cmake", "cc", "c++", "pkg-config") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: libunrain is not built")
    top = tmp_path_factory.mktemp("checkout")
    for name in ("csrc", "pyproject.toml"):
        (top / name).symlink_to(ROOT / name)
    objects = build.BuildNative(Distribution()).core_objects()
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run("cmake", "-S", "csrc", "-B", "build/libunrain", f"-DUNRAIN_OBJECTS={';'.join(objects)}", *generator, cwd=top)
    return top


@pytest.fixture(scope="session")
def prefix(checkout, tmp_path_factory) -> Path:
    """Where it is installed."""
    target = tmp_path_factory.mktemp("installed")
    run("cmake", "--build", "build/libunrain", "--parallel", str(os.cpu_count() or 1), cwd=checkout)
    run("cmake", "--install", "build/libunrain", "--prefix", target, cwd=checkout)
    return target


@pytest.fixture(scope="session")
def environment(prefix) -> dict[str, str]:
    folder = next(prefix.glob("**/pkgconfig"))
    return {**os.environ, "PKG_CONFIG_PATH": str(folder), "LD_LIBRARY_PATH": str(folder.parent), "OMP_NUM_THREADS": "2"}


@pytest.fixture(scope="session")
def library(prefix) -> Library:
    return Library(next(prefix.glob("**/libunrain.so")))


@pytest.fixture(scope="session")
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(3)
    return {"srn": unrain.load("srn"), "wiper-s": unrain.build("wiper-s").eval()}


@pytest.fixture(scope="session")
def programs(networks, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    for name, network in networks.items():
        unrain.record(network).save(folder / f"{name}.unrain")
    return {name: folder / f"{name}.unrain" for name in networks}


@pytest.fixture(scope="session")
def compiled(prefix, environment, tmp_path_factory):
    """A C program of these sources, linked as pkg-config says."""

    def compiled(*sources: Path, flags: tuple[str, ...] = ()) -> Path:
        target = tmp_path_factory.mktemp("c") / sources[0].stem
        found = run("pkg-config", "--cflags", "--libs", "unrain", env=environment).stdout.split()
        run("cc", *STRICT, *sources, *found, *flags, "-o", target)
        return target

    return compiled
