"""The GStreamer element: in a harness, in the pipelines of its page and of examples/pipes.md, and with late frames."""

import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from c_library import ROOT, run

import unrain

HERE = Path(__file__).resolve().parent
PAGE = (ROOT / "docs" / "in-gstreamer.md").read_text(encoding="utf-8")
TOOLS = ("gst-launch-1.0", "gst-inspect-1.0")
GLIB_SUPPRESSIONS = Path("/usr/share/glib-2.0/valgrind/glib.supp")


@pytest.fixture(scope="module")
def gstreamer(prefix, environment, tmp_path_factory) -> dict[str, str]:
    """The environment in which GStreamer finds the element, with a registry of its own."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found")
    found = list(prefix.glob("**/libgstunrain.so"))
    if not found:
        pytest.skip("the element was not built: pkg-config does not find gstreamer-video-1.0")
    registry = str(tmp_path_factory.mktemp("registry") / "registry.bin")
    return {
        **environment,
        "GST_PLUGIN_PATH": str(found[0].parent),
        "GST_REGISTRY": registry,
        "LANG": "C.UTF-8",
        "GST_DEBUG_NO_COLOR": "1",
    }


@pytest.fixture(scope="module")
def harness(gstreamer, compiled, programs, tmp_path_factory) -> list[Path]:
    """The program of gstreamer.c with its arguments."""
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "gstreamer-check-1.0", "gstreamer-video-1.0"],
        capture_output=True,
        text=True,
    )
    if found.returncode != 0:
        pytest.skip("pkg-config does not find gstreamer-check-1.0")
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = unrain.build("wiper-s").eval()
    with torch.no_grad():
        network.leave.bias.fill_(float("nan"))
    unrain.record(network).save(folder / "faulty.unrain")
    (folder / "broken.unrain").write_bytes(bytes(1000))
    flags = ("-Wno-pedantic", *(word.replace("-I", "-isystem") for word in found.stdout.split()))
    program = compiled(HERE / "gstreamer.c", flags=flags)
    return [program, programs["wiper-s"], folder / "faulty.unrain", folder / "broken.unrain"]


def test_frames_times_states_faults_and_errors(harness, gstreamer):
    """Each part says what it shows; nothing of GStreamer's is left when all are done."""
    done = run(*harness, env={**gstreamer, "GST_TRACERS": "leaks", "GST_DEBUG": "GST_TRACER:7"})
    assert len(re.findall("^ok ", done.stdout, re.M)) == 12, done.stdout
    assert "object-alive.class" in done.stderr, "the tracer does not run"
    assert not re.findall("object-alive, type-name=.string.Gst.*", done.stderr)


@pytest.mark.slow
def test_valgrind_finds_nothing(harness, gstreamer):
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind not found")
    known = [f"--suppressions={GLIB_SUPPRESSIONS}"] if GLIB_SUPPRESSIONS.exists() else []
    leaks = ["--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]
    run("valgrind", "-q", "--error-exitcode=9", *leaks, *known, *harness, env={**gstreamer, "G_SLICE": "always-malloc"})


def test_it_says_what_it_is(gstreamer):
    told = run("gst-inspect-1.0", "unrain", env=gstreamer).stdout
    assert "Takes rain out of video" in told and "{ (string)NV12, (string)RGB, (string)BGR }" in told
    listed = re.findall(r"^  ([a-z-]+) +: ", told, re.M)
    on_the_page = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.M)
    assert sorted(listed) == sorted([*on_the_page, "name", "parent"])


@pytest.fixture
def clip(tmp_path) -> Path:
    """Rain on a moving picture, with sound, at times that are no whole numbers of frames."""
    av = pytest.importorskip("av")
    path = tmp_path / "rainy.mkv"
    with av.open(str(path), "w") as file:
        video = file.add_stream("libvpx", rate=Fraction(30000, 1001), width=70, height=46)
        sound = file.add_stream("libopus", rate=48000)
        for k in range(8):
            frame = av.VideoFrame(70, 46, "rgb24")
            frame.planes[0].update(bytes((7 * n + 9 * k) % 200 for n in range(frame.planes[0].buffer_size)))
            frame.pts = k if k < 5 else k + 3
            file.mux(video.encode(frame))
        wave = av.AudioFrame("s16", "stereo", 12000)
        wave.sample_rate, wave.pts = 48000, 0
        for plane in wave.planes:
            plane.update(bytes(plane.buffer_size))
        file.mux(sound.encode(wave))
        for stream in (video, sound):
            file.mux(stream.encode())
    return path


def times(path: Path) -> list[float]:
    import av

    with av.open(str(path)) as file:
        return [frame.time for frame in file.decode(video=0)]


def sound(path: Path) -> list[bytes]:
    import av

    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(audio=0)]


def test_the_page_runs_as_it_is_written(checkout, gstreamer, clip, tmp_path):
    build, *pipelines = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    build, network = build.split("unrain export")
    words = {**gstreamer, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words.pop("LD_LIBRARY_PATH")
    told = run("bash", "-euc", build, cwd=checkout, env=words).stdout
    assert f"{tmp_path}/.local/lib/gstreamer-1.0/libgstunrain.so" in told
    words["GST_PLUGIN_PATH"] = f"{tmp_path}/.local/lib/gstreamer-1.0"
    run("bash", "-euc", f"unrain export{network}", cwd=tmp_path, env=words)
    for pipeline in pipelines:
        run("bash", "-euc", pipeline, cwd=tmp_path, env=words, timeout=120)
    assert len(times(tmp_path / "pattern.mkv")) == 15
    assert times(tmp_path / "dry.mkv") == times(clip)
    assert sound(tmp_path / "dry.mkv") == sound(clip) != []


def test_the_one_line_form_of_the_pipes(gstreamer, clip, programs, tmp_path):
    pipes = (ROOT / "examples" / "pipes.md").read_text(encoding="utf-8")
    section = pipes.split("## In one pipeline")[1].split("\n## ")[0]
    pipeline = "\n".join(re.findall(r"^    (.*)$", section, re.M))
    assert "unrain model=$MODEL.unrain" in pipeline
    words = {**gstreamer, "MODEL": str(programs["wiper-s"]).removesuffix(".unrain")}
    run("bash", "-euc", pipeline, cwd=tmp_path, env=words)
    assert times(tmp_path / "gstreamer.mkv") == times(clip)


def launch(line: str, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess:
    command = ["gst-launch-1.0", *options, *line.split()]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_a_model_that_is_none_is_one_error(gstreamer, tmp_path):
    model = tmp_path / "broken.unrain"
    model.write_bytes(b"UNRAIN" + bytes(500))
    done = launch(f"videotestsrc num-buffers=3 ! unrain model={model} ! fakesink", gstreamer)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: from element")]
    assert done.returncode != 0 and len(errors) == 1
    assert errors[0].endswith(f"{model}: this is no program file (.unrain)")


def test_what_is_too_late_for_a_live_sink_is_dropped_before_the_network(gstreamer, programs):
    source = "videotestsrc is-live=true num-buffers=60 ! video/x-raw,format=RGB,width=160,height=96,framerate=200/1"
    sink = "fakesink sync=true qos=true max-lateness=1000000"
    done = launch(f"{source} ! unrain model={programs['srn']} threads=1 ! {sink}", gstreamer, "-m")
    assert done.returncode == 0, done.stderr
    assert re.search(r'from element "unrain0" \(qos\)', done.stdout)


def test_a_late_frame_is_a_message(gstreamer, programs):
    source = "videotestsrc num-buffers=20 ! video/x-raw,format=BGR,width=160,height=96"
    done = launch(f"{source} ! unrain model={programs['srn']} threads=1 deadline-ms=1 ! fakesink", gstreamer, "-m")
    assert done.returncode == 0, done.stderr
    told = re.findall(
        r'"unrain0" \(element\): unrain, outcome=\(string\)(\w+), reason=\(string\)"([^"]+)"', done.stdout
    )
    assert told and {outcome for outcome, _ in told} <= {"late", "passthrough"}
