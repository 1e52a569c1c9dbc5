"""libunrain as CMake builds and installs it, once per session, and programs to run in it."""

import os
import sys
from pathlib import Path

import pytest
import torch

import unrain

sys.path.insert(0, str(Path(__file__).parent))  # for c_library
from c_library import STRICT, Library, install, missing_tools, run, set_up


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A top folder in which `cmake -S csrc -B build/libunrain` takes what the Python package has compiled already."""
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} not found: libunrain is not built")
    return set_up(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def prefix(checkout, tmp_path_factory) -> Path:
    """Where it is installed."""
    return install(checkout, tmp_path_factory.mktemp("installed"))


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
