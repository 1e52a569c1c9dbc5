"""examples/cpp: built by CMake as its README says, compared with PyTorch, and fed with what goes wrong."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unrain
from unrain.engine.images import read_image
from unrain.engine.runtime.backends import sidecar
from unrain.export.pictures import bundled
from unrain.export.targets import Options, export

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"
SIZE = (64, 96)
GROWTH_KIB = 4096  # that memory may differ by between frame 20 and frame 500

pytestmark = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++")), reason="needs cmake and a C++ compiler (apt: cmake g++)"
)


def configure(folder, prefix):
    words = ["cmake", "-S", str(SOURCE), "-B", str(folder), f"-DCMAKE_PREFIX_PATH={prefix}"]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wiper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    configured = configure(folder, torch.utils.cmake_prefix_path)
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(["cmake", "--build", str(folder), "-j2"], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning" not in built.stdout + built.stderr
    return folder / "wiper"


class Moody(nn.Module):
    """Derains nothing, and breaks on cue: a first pixel of full red gives NaN, of full blue an exception."""

    @dataclass(frozen=True)
    class Config:
        pass

    name = "moody"
    config = Config()

    def forward(self, x):
        torch._check(x[0, 2, 0, 0].item() < 0.9)
        return x * 0.5 + (x - x) / (1 - x[:, :1, :1, :1])


class Poisoned(nn.Module):
    name = "poisoned"
    config = Moody.config

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 1), float("nan")))

    def forward(self, x):
        return x * self.weight


@pytest.fixture(scope="module")
def moody(tmp_path_factory):
    path = tmp_path_factory.mktemp("moody") / "moody.pt2"
    export(Moody(), "package", path, Options("fp32", size=SIZE))
    return path


@pytest.fixture(scope="module")
def rainy():
    """A real picture in the rain, of the package's size."""
    return np.ascontiguousarray(bundled()[0][100:][: SIZE[0], : SIZE[1]])


def ppm(picture):
    height, width, _ = picture.shape
    return b"P6\n# rain\n%d %d\n255\n" % (width, height) + picture.tobytes()


def run(wiper, *words, data=None):
    done = subprocess.run([wiper, *map(str, words)], input=data, capture_output=True, timeout=300)
    return done.returncode, done.stdout, done.stderr.decode()


def summary(said):
    """Frames, derained, late, raw; and the reasons for raw ones with their numbers."""
    found = re.search(r"wiper: (\d+) frames, (\d+) derained, (\d+) late, (\d+) raw(?: \((.*?)\))?; p50", said)
    assert found, said
    reasons = dict(part.split(" ", 1)[::-1] for part in found[5].split(", ")) if found[5] else {}
    return *(int(found[i]) for i in range(1, 5)), {reason: int(number) for reason, number in reasons.items()}


def same_as_python(model, wiper, package, picture, folder):
    (folder / "rainy.ppm").write_bytes(ppm(picture))
    code, out, err = run(wiper, package, "-i", folder / "rainy.ppm", "-o", folder / "clean.ppm")
    assert (code, out) == (0, b"") and "1 frames, 1 derained" in err, err
    clean = read_image(folder / "clean.ppm")
    expected = unrain.Engine(model, backend="eager", precision="fp32")(picture)
    difference = int(np.abs(clean.astype(int) - expected).max())
    print(f"{package.name}: largest difference {difference} codes; rain removed: {np.abs(clean - picture * 1.0).max()}")
    assert difference <= 1 and np.abs(expected.astype(int) - picture).max() > 8
    assert sorted(path.name for path in folder.iterdir()) == ["clean.ppm", "rainy.ppm"]
    return clean


def test_a_picture_comes_out_as_from_python(wiper, srn_package, network, rainy, tmp_path):
    same_as_python(network("srn", stages=1), wiper, srn_package, rainy, tmp_path)


@pytest.mark.slow
def test_the_shipped_weights_on_a_whole_picture(wiper, tmp_path):
    """As the README says it: exported by the command line, all stages, a picture of 480x320."""
    package = tmp_path / "package" / "srn.pt2"
    words = ["export", "srn", "--to", "package", "--size", "320x480", "-o", str(package)]
    subprocess.run([shutil.which("unrain") or Path(os.sys.executable).with_name("unrain"), *words], check=True)
    picture = np.ascontiguousarray(bundled()[0][:320, :480])
    (tmp_path / "pictures").mkdir()
    same_as_python(unrain.load("srn"), wiper, package, picture, tmp_path / "pictures")


def test_500_frames_in_flat_memory(wiper, srn_package, rainy):
    words = [wiper, srn_package, "--deadline-ms", "0", "--threads", "1"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    resident, first = {}, None
    for number in range(1, 501):
        process.stdin.write(rainy.tobytes())
        process.stdin.flush()
        frame = process.stdout.read(rainy.nbytes)
        first = first or frame
        assert frame == first and frame != rainy.tobytes()
        if number in (20, 100, 250, 500):
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident[number] = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
    _, err = process.communicate()
    print(f"resident KiB after so many frames: {resident}")
    assert process.returncode == 0 and summary(err.decode())[:4] == (500, 500, 0, 0)
    assert max(resident.values()) - resident[20] <= GROWTH_KIB, resident


def test_nan_and_exceptions_let_the_raw_frame_through(wiper, moody, rainy):
    good, nan, throws = (rainy // 2 for _ in range(3))
    good[0, 0] = 0
    nan[0, 0] = (255, 0, 0)
    throws[0, 0] = (0, 0, 255)
    sequence = [good, nan, good, throws, throws, good, nan]
    data = b"".join(frame.tobytes() for frame in sequence)
    code, out, err = run(wiper, moody, "--deadline-ms", "0", data=data)
    assert code == 0 and len(out) == len(data)
    frames = [np.frombuffer(out, np.uint8)[i * good.size :][: good.size].reshape(good.shape) for i in range(7)]
    derained = np.rint(good * np.float32(0.5))
    for sent, got in zip(sequence, frames, strict=True):
        np.testing.assert_array_equal(got, derained if sent is good else sent)
    assert summary(err) == (7, 3, 0, 4, {"values that are no numbers": 2, "error in the network": 2})
    assert "wiper: last error: " in err and err.count("\n") <= 4


def test_repeated_faults_take_a_rest_and_it_recovers(wiper, moody, rainy):
    good, nan = rainy // 2, rainy // 2
    good[0, 0] = 0
    nan[0, 0] = (255, 0, 0)
    sequence = [nan] * 5 + [good] * 62 + [nan] * 5 + [good] * 3
    code, _, err = run(wiper, moody, "--deadline-ms", "0", data=b"".join(frame.tobytes() for frame in sequence))
    assert code == 0
    # Five faults and 60 frames of rest, two good ones, and after five faults more the next rest.
    reasons = {"values that are no numbers": 10, "resting after repeated faults": 63}
    assert summary(err) == (75, 2, 0, 73, reasons)


def test_a_poisoned_package_passes_everything_raw(wiper, rainy, tmp_path):
    package = tmp_path / "poisoned.pt2"
    export(Poisoned(), "package", package, Options("fp32", size=SIZE))
    code, out, err = run(wiper, package, data=rainy.tobytes() * 10)
    assert (code, out) == (0, rainy.tobytes() * 10)
    assert "every frame passes raw, the self-test failed: values that are no numbers" in err
    assert summary(err) == (10, 0, 0, 10, {"the self-test failed": 10})
    (tmp_path / "rainy.ppm").write_bytes(ppm(rainy))
    code, _, err = run(wiper, package, "-i", tmp_path / "rainy.ppm", "-o", tmp_path / "clean.ppm")
    assert code == 1 and "is not derained: the self-test failed: values that are no numbers" in err
    assert not (tmp_path / "clean.ppm").exists()


def test_a_deadline_that_cannot_be_met_blocks_nothing(wiper, srn_package, rainy):
    code, out, err = run(wiper, srn_package, "--deadline-ms", "0.01", data=rainy.tobytes() * 30)
    frames, derained, late, raw, reasons = summary(err)
    assert code == 0 and (frames, derained) == (30, 0) and len(out) == 30 * rainy.nbytes
    assert raw >= 29 and late + raw == 30 and reasons["not ready at the deadline"] >= 1
    assert out[-rainy.nbytes :] == rainy.tobytes()


def test_what_is_wrong_is_one_line(wiper, srn_package, rainy, tmp_path):
    whole = srn_package.read_bytes()
    edited = bytearray(whole)
    edited[len(edited) // 2] ^= 1
    vouched = sidecar.sidecar_of(srn_package).read_bytes()
    for name, data in {"short": whole[: len(whole) // 2], "edited": edited, "none": b"", "alone": whole}.items():
        (tmp_path / f"{name}.pt2").write_bytes(data)
        if name != "alone":
            (tmp_path / f"{name}.pt2.json").write_bytes(vouched)
    # Vouched for, and still no package.
    (tmp_path / "text.pt2").write_text("no package")
    (tmp_path / "text.pt2.json").write_text(sidecar.complete({}, b"no package"))
    (tmp_path / "small.ppm").write_bytes(ppm(rainy[:, :80]))
    (tmp_path / "cut.ppm").write_bytes(ppm(rainy)[:-1])
    (tmp_path / "deep.ppm").write_bytes(b"P6 96 64 65535\n" + bytes(100))
    (tmp_path / "huge.ppm").write_bytes(b"P6 999999 999999 255\n")
    out = tmp_path / "x.ppm"
    wrong = {
        "name a package": [],
        "there is no option --fast": [srn_package, "--fast"],
        "--deadline-ms must be a number from 0 to": [srn_package, "--deadline-ms", "soon"],
        "needs both -i and -o": [srn_package, "-i", tmp_path / "small.ppm"],
        "nothing.pt2 cannot be read": ["nothing.pt2", "-i", tmp_path / "small.ppm", "-o", out],
        "short.pt2 is not the file that its sidecar describes (SHA-256)": [tmp_path / "short.pt2"],
        "none.pt2 is not the file that its sidecar describes (SHA-256)": [tmp_path / "none.pt2"],
        "edited.pt2 is not the file that its sidecar describes (SHA-256)": [tmp_path / "edited.pt2"],
        "alone.pt2.json cannot be read": [tmp_path / "alone.pt2"],
        "text.pt2 is no package, or only a part of one": [tmp_path / "text.pt2"],
        "small.ppm is 64x80, the package takes 64x96": [srn_package, "-i", tmp_path / "small.ppm", "-o", out],
        "cut.ppm ends too early": [srn_package, "-i", tmp_path / "cut.ppm", "-o", out],
        "deep.ppm is no PPM with 8 bits a colour": [srn_package, "-i", tmp_path / "deep.ppm", "-o", out],
        "huge.ppm has more than 16384 pixels on a side": [srn_package, "-i", tmp_path / "huge.ppm", "-o", out],
    }
    for message, words in wrong.items():
        code, printed, err = run(wiper, *words, data=b"")
        assert (code, printed) == (1, b"") and message in err and err.count("\n") == 1, (message, err)
    assert not out.exists()
    code, printed, err = run(wiper, srn_package, "--deadline-ms", "0", data=rainy.tobytes() * 2 + b"rest")
    assert code == 1 and len(printed) == 2 * rainy.nbytes
    assert f"the input ended inside frame 3, 4 of {rainy.nbytes} bytes" in err


def test_no_libtorch_is_one_line_from_cmake(tmp_path):
    configured = configure(tmp_path / "build", tmp_path)
    assert configured.returncode != 0
    said = [line.strip() for line in configured.stderr.splitlines() if "libtorch" in line]
    assert len(said) == 1 and "-DCMAKE_PREFIX_PATH=$(python3 -c " in said[0], configured.stderr
