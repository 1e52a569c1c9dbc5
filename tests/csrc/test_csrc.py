"""Builds the C++ core with strict warnings, runs its tests under the sanitizers, and compiles the CUDA half."""

import importlib.util
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from setuptools import Distribution

import unrain
from unrain import record
from unrain.csrc import build

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
# GCC's own AVX-512 header trips these two (its PR 105593).
STRICT += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ on this machine")


def compile_all(folder: Path, units: list[tuple[Path, list[str]]], flags: list[str]) -> list[Path]:
    """One object per unit; a compiler message is the test's failure."""

    def one(numbered) -> Path:
        number, (source, extra) = numbered
        target = folder / f"{number}-{source.stem}.o"
        command = ["g++", "-c", str(source), "-o", str(target), "-std=c++17", "-fopenmp", f"-I{CSRC}", f"-I{HERE}"]
        done = subprocess.run([*command, *flags, *extra], capture_output=True, text=True)
        assert done.returncode == 0, f"{source.name}:\n{done.stderr[-3000:]}"
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, enumerate(units)))


def tier_units() -> list[tuple[Path, list[str]]]:
    return [(CSRC / "tiers" / f"{unit}.cpp", build.TIERS[unit][0]) for unit in build.units()]


def library_units() -> list[tuple[Path, list[str]]]:
    """All that libunrain is made of."""
    library = [(path, ['-DUNRAIN_VERSION="test"']) for path in sorted((CSRC / "library").glob("*.cpp"))]
    return [*((CSRC / name, []) for name in build.CORE), *tier_units(), *library]


def test_core_passes_its_tests_under_address_and_undefined_sanitizers(tmp_path):
    tests = ("main.cpp", "ops.cpp", "conv.cpp", "program.cpp", "library.cpp", "gpu_bodies.cpp")
    units = [*library_units(), *((HERE / name, []) for name in tests)]
    for tier in build.tiers():
        defines = [f"-DUNRAIN_TIER={tier}", f"-DUNRAIN_SIMD_{tier.upper()}"]
        units.append((HERE / "vectors.cpp", [*build.TIERS[tier][0], *defines]))
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = [*STRICT, *sanitize, "-O1", "-g1", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
    objects = compile_all(tmp_path, units, flags)
    program = tmp_path / "tests"
    subprocess.run(["g++", *map(str, objects), "-o", str(program), "-fopenmp", *sanitize], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "all passed" in done.stdout


@pytest.mark.slow
def test_two_threads_at_once_share_nothing_under_the_thread_sanitizer(tmp_path):
    units = [*library_units(), *((HERE / name, []) for name in ("threads.cpp", "ops.cpp", "conv.cpp", "library.cpp"))]
    flags = ["-fsanitize=thread", "-fno-openmp", "-O1", "-g1", "-ffp-contract=off", "-fno-math-errno"]
    objects = compile_all(tmp_path, units, [*flags, "-fno-trapping-math"])
    program = tmp_path / "tests"
    subprocess.run(["g++", *map(str, objects), "-o", str(program), "-fsanitize=thread"], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0 and "all passed" in done.stdout, (done.stdout + done.stderr)[-4000:]


def test_each_tier_as_it_is_shipped_keeps_to_itself():
    """A function compiled with AVX flags that other tiers could link to would crash a machine without AVX."""
    for unit in build.units():
        kept = sorted((build.ROOT / "build" / "native").glob(f"{unit}-*.o"), key=lambda path: path.stat().st_mtime)
        if not kept:
            pytest.skip("the package was not built in this tree: no objects are kept in build/native")
        listing = subprocess.run(["nm", "-C", str(kept[-1])], capture_output=True, text=True, check=True).stdout
        shared = [line for line in listing.splitlines() if re.search(r" [WuV] ", line)]
        strangers = [
            line for line in shared if f"unrain::{unit}" not in line and "DW.ref.__gxx_personality" not in line
        ]
        assert not strangers, f"{unit} shares with the others: {strangers[:5]}"


def test_an_object_is_made_anew_for_what_its_source_includes_and_for_nothing_else(tmp_path, monkeypatch):
    source, near, far = (tmp_path / name for name in ("a.cpp", "near.h", "far.h"))
    source.write_text('#include <vector>\n#include "near.h"\n')
    near.write_text("// 1")
    far.write_text("// 1")
    monkeypatch.setattr(build, "CSRC", tmp_path)
    kept = [build._fingerprint(["-O2"], source)]
    far.write_text("// 2")
    assert build._fingerprint(["-O2"], source) == kept[0]
    near.write_text("// 2")
    kept.append(build._fingerprint(["-O2"], source))
    kept.append(build._fingerprint(["-O3"], source))
    assert len(set(kept)) == 3


NARROW_WIPER = {"half": 2, "quarter": 2, "eighth": 2, "hidden": 2, "quarter_pairs": 1, "eighth_pairs": 1}
FUZZED = ("-O1", "-g1", "-ffp-contract=off", f"-I{CSRC}", "-fsanitize=fuzzer,address,undefined")


@pytest.fixture(scope="module")
def fuzzed_objects(tmp_path_factory) -> list[Path]:
    """libunrain for the fuzzers; its kernels, which would take minutes to compile, are the Python package's."""
    if shutil.which("clang++") is None:
        pytest.skip("there is no clang++ on this machine")
    folder = tmp_path_factory.mktemp("fuzzed")
    objects = [Path(path) for path in build.BuildNative(Distribution()).core_objects()]
    objects = [path for path in objects if path.stem.rpartition("-")[0] in build.units()]
    for source, extra in [unit for unit in library_units() if unit not in tier_units()]:
        objects.append(folder / f"{source.parent.name}-{source.stem}.o")
        command = ["clang++", "-c", str(source), "-o", str(objects[-1]), "-std=c++17", *FUZZED, *extra]
        subprocess.run(command, check=True)
    return objects


@pytest.mark.slow
@pytest.mark.parametrize("target", ["fuzz_program.cpp", "fuzz_library.cpp"])
def test_the_fuzzer_finds_nothing_within_a_minute(target, fuzzed_objects, tmp_path):
    program = tmp_path / "fuzz"
    command = ["clang++", str(HERE / target), *map(str, fuzzed_objects), "-o", str(program), "-std=c++17", *FUZZED]
    subprocess.run([*command, "-lgomp"], check=True)
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    record(torch.nn.Conv2d(3, 3, 3, padding=1).eval()).save(seeds / "convolution.unrain")
    record(unrain.build("wiper-s", **NARROW_WIPER).eval()).save(seeds / "wiper.unrain")
    record(unrain.build("srn", channels=2, blocks=1, stages=2).eval()).save(seeds / "srn.unrain")
    fuzz = [str(program), str(seeds), "-max_total_time=60"]
    done = subprocess.run(fuzz, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(re.findall(r"Done (\d+) runs", done.stderr)[0]) > 100


def cuda_object(tmp_path, archs: list[str]) -> tuple[Path, str]:
    nvcc = build.find_nvcc()
    if nvcc is None:
        pytest.skip("there is no nvcc on this machine")
    target = build.compile_cuda(nvcc, CSRC / "cuda" / "kernels.cu", archs, tmp_path, ("--ptxas-options=-v",))
    return Path(target), nvcc


def test_cuda_sources_compile(tmp_path):
    assert cuda_object(tmp_path, ["90"])[0].stat().st_size > 10_000


@pytest.mark.slow
def test_cuda_sources_compile_for_every_architecture(tmp_path):
    target, nvcc = cuda_object(tmp_path, build.CUDA_ARCHS.split(","))
    triton = importlib.util.find_spec("triton")  # ships the tool, also for machines whose toolkit left it out
    folders = [build.cuda_library_folders(nvcc)[0].parent / "bin"]
    folders += [Path(triton.origin).parent / "backends" / "nvidia" / "bin"] if triton and triton.origin else []
    tool = next((found for folder in folders if (found := shutil.which("cuobjdump", path=str(folder)))), None)
    if tool is None:
        pytest.skip("there is no cuobjdump beside nvcc or in triton")
    listing = subprocess.run([tool, "-lelf", str(target)], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"sm_(\d+)", listing)) == set(build.CUDA_ARCHS.split(","))
