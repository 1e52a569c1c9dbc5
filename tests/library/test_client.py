"""What a C program meets: the header, the linker, and the result."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from c_library import ROOT, STRICT, run

import unrain

HERE = Path(__file__).resolve().parent
CLIENT = ROOT / "examples" / "c" / "derain.c"
HEADER = ROOT / "csrc" / "include" / "unrain.h"


def write_ppm(path: Path, picture: np.ndarray) -> Path:
    height, width, _ = picture.shape
    path.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + picture.tobytes())
    return path


def read_ppm(path: Path) -> np.ndarray:
    _, size, _, pixels = path.read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def frames(count: int, height: int = 45, width: int = 70) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    smooth = np.linspace(40, 200, height * width * 3).reshape(height, width, 3)
    return [np.clip(smooth + random.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8) for _ in range(count)]


@torch.inference_mode()
def in_python(network: torch.nn.Module, pictures: list[np.ndarray]) -> list[np.ndarray]:
    results, state = [], None
    for picture in pictures:
        x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        if hasattr(network, "step"):
            y, state = network.step(x, network.initial_state(x) if state is None else state)
        else:
            y = network(x)
        results.append((y[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy().astype(np.uint8))
    return results


@pytest.mark.parametrize("name", ["srn", "wiper-s"])
def test_the_client_derains_as_python_does(name, compiled, environment, programs, networks, tmp_path):
    client, pictures = compiled(CLIENT), frames(3)
    words: list[Path] = []
    for k, picture in enumerate(pictures):
        words += [write_ppm(tmp_path / f"{k}.ppm", picture), tmp_path / f"{k}-dry.ppm"]
    done = run(client, programs[name], *words, env=environment)
    assert "3 frames, 3 of them derained" in done.stderr
    for path, expected in zip(words[1::2], in_python(networks[name], pictures), strict=True):
        assert np.abs(read_ppm(path).astype(int) - expected).max() <= 1


def test_the_static_library_links_with_what_pkg_config_says(prefix, environment, programs, tmp_path):
    told = run("pkg-config", "--static", "--cflags", "--libs", "unrain", env=environment).stdout
    static = next(prefix.glob("**/libunrain.a"))
    run("cc", *STRICT, CLIENT, *told.replace("-lunrain", str(static)).split(), "-o", tmp_path / "client")
    assert "libunrain" not in run("ldd", tmp_path / "client").stdout
    picture = write_ppm(tmp_path / "in.ppm", frames(1)[0])
    run(tmp_path / "client", programs["wiper-s"], picture, tmp_path / "out.ppm")


def test_cmake_finds_it(prefix, tmp_path):
    minor = unrain.__version__.rpartition(".")[0]
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(client LANGUAGES C)\nfind_package(unrain {minor} REQUIRED)\n"
        f"add_executable(client {CLIENT})\ntarget_link_libraries(client PRIVATE unrain::unrain)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")


def test_only_the_system_is_needed(prefix):
    library = next(prefix.glob("**/libunrain.so"))
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", library).stdout)
    assert {name.split(".")[0] for name in needed} <= {"libc", "libm", "libgomp", "libpthread", "ld-linux-x86-64"}


def test_the_header_is_cpp_as_well(tmp_path):
    source = tmp_path / "includes.cpp"
    source.write_text("#include <unrain.h>\nint main() { return unrain_default_options(8, 8).width - 8; }\n")
    run("c++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{HEADER.parent}", source)


@pytest.mark.parametrize(("size", "threads", "count"), [((16, 24), 1, 1000), ((160, 96), 3, 60)])
def test_nothing_is_allocated_after_the_first_frame(size, threads, count, compiled, environment, programs):
    counter = compiled(HERE / "allocations.c", flags=("-std=gnu99",))
    done = run(counter, programs["wiper-s"], *map(str, (*size, threads, count)), env=environment)
    before, after = map(int, done.stdout.split())
    assert before > 10, "the counter does not see the set-up"
    assert after == 0


class TestCommand:
    @pytest.fixture
    def command(self, prefix):
        def command(*words, **options):
            path = prefix / "bin" / "unrain-c"
            return subprocess.run([str(path), *map(str, words)], capture_output=True, timeout=120, **options)

        return command

    def test_pictures(self, command, programs, networks, tmp_path):
        [picture] = frames(1)
        source, target = write_ppm(tmp_path / "in.ppm", picture), tmp_path / "out.ppm"
        done = command(programs["wiper-s"], source, target)
        assert done.returncode == 0 and b"1 frames: 1 ok" in done.stderr, done.stderr
        assert np.abs(read_ppm(target).astype(int) - in_python(networks["wiper-s"], [picture])[0]).max() <= 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ppm", "out.ppm"]

    @pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr24", "nv12"])
    def test_raw_frames_through_a_pipe(self, pix_fmt, command, programs):
        frame = bytes(range(256)) * 9
        size = 48 * 32 * 3 // (2 if pix_fmt == "nv12" else 1)
        raw = (frame * 9)[:size] * 3
        options = ["--size", "48x32", "--pix-fmt", pix_fmt]
        assert command(programs["wiper-s"], *options, "--strength", "0", input=raw).stdout == raw
        done = command(programs["wiper-s"], *options, "--quiet", input=raw)
        assert done.returncode == 0 and done.stderr == b"" and len(done.stdout) == len(raw) and done.stdout != raw

    @pytest.mark.parametrize(
        ("words", "code", "line"),
        [
            (["--size", "48"], 2, "unrain-c: --size: 48"),
            (["--size"], 2, "its value is missing"),
            ([], 2, "raw frames need their size"),
            (["--size", "4x4"], 1, "at least 8 x 8"),
            (["--size", "48x32", "--stages", "9"], 1, "stages must be 0 (all) to 1"),
            (["--size", "48x32", "--precision", "int8"], 1, "this version has no int8: take auto, fp32 or bf16"),
            (["--size", "48x32"], 1, "no frame came"),
            (["one.ppm"], 2, "without a place for its result"),
            (["missing.ppm", "out.ppm"], 1, "cannot be opened"),
            (["--colour", "red"], 2, "no such option"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, words, code, line, command, programs):
        done = command(programs["wiper-s"], *words, input=b"")
        assert done.returncode == code and line in done.stderr.decode() and done.stderr.count(b"\n") == 1

    def test_a_frame_that_breaks_off(self, command, programs):
        done = command(programs["wiper-s"], "--size", "48x32", "--quiet", input=bytes(48 * 32 * 3 + 5))
        assert done.returncode == 1 and b"the last frame breaks off" in done.stderr
        assert len(done.stdout) == 48 * 32 * 3
