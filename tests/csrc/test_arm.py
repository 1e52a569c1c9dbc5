"""The core for 64-bit ARM: compiled without a warning, its tests by qemu-user, and networks against this machine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import unrain
from unrain.engine.psnr import psnr
from unrain.engine.runtime import fidelity

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "on-arm.md").read_text(encoding="utf-8")
STRICT = "-Wall -Wextra -Wconversion -Wshadow -Werror -Wno-maybe-uninitialized -Wno-uninitialized"
TOOLS = ("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
# Of ARM's first 64-bit design, which has nothing but the base; and with all that qemu knows, products of bfloat16 too.
OLDEST, NEWEST = ("-cpu", "cortex-a53"), ("-cpu", "max")

pytestmark = [pytest.mark.skipif(bool(MISSING), reason=f"not found: {', '.join(MISSING)}"), pytest.mark.timeout(3000)]


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command[0]}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built() -> Path:
    """The build folder, which stays: it is that of docs/on-arm.md, with stricter warnings."""
    folder = ROOT / "build" / "arm64"
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'csrc' / 'cmake' / 'aarch64.cmake'}"
    wanted = [toolchain, f"-DCMAKE_CXX_FLAGS={STRICT}", "-DUNRAIN_STATIC_COMMAND=ON", "-DUNRAIN_TESTS=ON"]
    run("cmake", "-S", ROOT / "csrc", "-B", folder, *wanted)
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


def check_parts(built: Path, processor: tuple[str, str], *parts: str) -> None:
    said = run("qemu-aarch64", *processor, built / "tests" / "core-tests", *parts)
    assert "all passed" in said
    assert "vectors" not in parts or "checked neon\nchecked generic" in said


def test_every_operation_of_the_core_gives_what_the_generic_tier_gives(built):
    check_parts(built, OLDEST, "vectors", "gpu_bodies", "library", "program")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["ops", "conv", "conv_endings"])
@pytest.mark.parametrize("processor", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_every_kernel_gives_what_the_generic_tier_gives(built, part, processor):
    if part == "ops" and processor == NEWEST:
        pytest.skip("the newest processor runs the same code: only convolutions multiply bfloat16")
    check_parts(built, processor, part)


def test_a_part_that_is_not_known_fails(built):
    done = subprocess.run(
        ["qemu-aarch64", built / "tests" / "core-tests", "no-such-part"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "a part is not known" in done.stdout


def test_units_keep_to_themselves(built):
    """A function compiled for bfloat16 that other units could link to would crash a processor without it."""
    units = sorted((built / "CMakeFiles" / "objects.dir" / "tiers").glob("*.o"))
    assert [unit.name.partition(".")[0] for unit in units] == ["neon", "neonbf16"]
    for unit in units:
        listing = run("aarch64-linux-gnu-nm", "-C", unit)
        shared = [line for line in listing.splitlines() if re.search(r" [WuV] ", line)]
        namespace = f"unrain::{unit.name.partition('.')[0]}::"
        strangers = [line for line in shared if namespace not in line and "DW.ref.__gxx_personality" not in line]
        assert not strangers, f"{unit.name} shares with the others: {strangers[:5]}"


def innermost_loops(code: str) -> list[list[str]]:
    """The names of the instructions from where a branch goes back to, up to it."""
    lines = re.findall(r"^ *([0-9a-f]+):\t(\S+)(?:\t(.*))?$", code, re.M)
    found, start = [], {}
    for at, (address, name, rest) in enumerate(lines):
        if name.startswith("b."):
            target = start.get(rest.split()[0])
            start.clear()
            if target is not None:
                found.append([each[1] for each in lines[target:at]])
        start[address] = at
    return found


def test_the_sums_of_a_convolution_stay_in_registers(built):
    """24 of NEON's 32 hold sums: what a step of the loop over inputs does is 24 products from at most 10 loads."""
    unit = built / "CMakeFiles" / "objects.dir" / "tiers" / "neon.cpp.o"
    loops = innermost_loops(run("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", unit))
    sums = [body for body in loops if body.count("fmla") == 24]
    stored = [body for body in sums if any(name.startswith("st") for name in body)]
    assert not stored, stored[0]
    loads = [sum(name.startswith("ld") for name in body) for body in sums]
    assert sum(count <= 10 for count in loads) >= 2, f"not those of the direct form and of Winograd's: {loads} loads"


def picture(side: int = 64) -> np.ndarray:
    """A photograph in rain: every network has something to do."""
    return (fidelity.sample(side, side)[0].permute(1, 2, 0) * 255).round().byte().numpy()


def derained_on_arm(built: Path, program: Path, frame: np.ndarray, *words: str) -> np.ndarray:
    """`words`: of qemu, then, behind `--`, of unrain-c."""
    at = words.index("--")
    height, width, _ = frame.shape
    command = ["qemu-aarch64", *words[:at], str(built / "unrain-c"), str(program), "--size", f"{width}x{height}"]
    done = subprocess.run([*command, *words[at + 1 :]], input=frame.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.uint8).reshape(frame.shape).astype(int)


@torch.inference_mode()
def derained_here(program: unrain.Program, frame: np.ndarray) -> np.ndarray:
    y = program(torch.from_numpy(frame).permute(2, 0, 1)[None] / 255)
    return (y[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy().astype(int)


SHIPPED = sorted(path.stem for path in (ROOT / "engine" / "weights").glob("*.safetensors"))


@pytest.mark.parametrize(
    "name", [name if name == "wiper-s" else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED]
)
def test_a_shipped_network_derains_as_on_this_machine(name, built, tmp_path):
    program = unrain.record(unrain.load(name))
    program.save(tmp_path / "network.unrain")
    frame, here = picture(), derained_here(program, picture())
    assert np.abs(here - frame).max() > 1, "a network that changes nothing tells nothing"
    there = derained_on_arm(built, tmp_path / "network.unrain", frame, *OLDEST, "--", "--precision", "fp32", "--quiet")
    assert np.abs(there - here).max() <= 1
    # bfloat16 is multiplied where the processor does it; the rule for it is that of every reduced precision.
    half = derained_on_arm(built, tmp_path / "network.unrain", frame, *NEWEST, "--", "--precision", "bf16", "--quiet")
    assert psnr(float(np.mean((half - here) ** 2)), peak=255) >= 50 or np.abs(half - here).max() <= 1


class TestPage:
    """docs/on-arm.md, word by word."""

    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)

    def test_its_commands_run_as_they_are_written(self, built, tmp_path):
        packages, *commands = self.blocks
        assert all(tool in packages for tool in ("g++-aarch64-linux-gnu", "qemu-user"))
        (tmp_path / "rainy.ppm").write_bytes(b"P6\n64 64\n255\n" + picture().tobytes())
        words = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for block in commands:
            run("bash", "-euc", block, cwd=ROOT if "build/arm64" in block else tmp_path, env=words)
        self.check_size((tmp_path / "arm64" / "bin" / "unrain-c").stat().st_size)
        assert (tmp_path / "dry.ppm").stat().st_size == (tmp_path / "rainy.ppm").stat().st_size

    def check_size(self, measured: int) -> None:
        [stated] = re.findall(r"(\d\.\d\d) MB", PAGE)
        assert abs(measured / 1e6 - float(stated)) < 0.1 * float(stated), (
            f"the page states {stated} MB: {measured} bytes"
        )

    def test_the_command_needs_nothing_of_the_system(self, built):
        assert "There is no dynamic section" in run("aarch64-linux-gnu-readelf", "-d", built / "unrain-c")

    def test_the_library_shows_what_it_shows_everywhere(self, built):
        header = (ROOT / "csrc" / "include" / "unrain.h").read_text()
        library = next(path for path in built.glob("libunrain.so*") if not path.is_symlink())
        listing = run("aarch64-linux-gnu-nm", "-D", "--defined-only", library)
        visible = {line.split()[-1].split("@")[0] for line in listing.splitlines()} - {"UNRAIN_0"}
        assert visible == set(re.findall(r"^UNRAIN_API [^(]*?(unrain_\w+)\(", header, re.M))
