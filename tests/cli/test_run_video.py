"""`unrain run` on video, as a user runs it: clips, folders, pipes, ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from unrain import build
from unrain.cli import run_video
from unrain.cli.main import main
from unrain.cli.pace import pace
from unrain.cli.run_video import plan_videos
from unrain.engine.errors import UnrainError
from unrain.engine.images import write_image
from unrain.engine.models.checkpoint import save
from unrain.engine.video.raw import frame_bytes, from_rgb, to_rgb
from unrain.engine.video.sources import camera, is_live, parse_rate, parse_size

av = pytest.importorskip("av", reason="video needs PyAV: pip install 'unrain[video]'")

SIZE = (48, 64)
PROGRAM = [sys.executable, "-m", "unrain.cli.main"]
PLAIN = ["--backend", "eager", "--precision", "fp32", "--threads", "1"]


@pytest.fixture(scope="module")
def weights(saved):
    """A small srn that changes hardly anything."""
    torch.manual_seed(0)
    model = build("srn", channels=8, blocks=1, stages=2)
    with torch.no_grad():
        model.branch.f_out.weight.mul_(1e-4)
        model.branch.f_out.bias.zero_()
    return saved(model)


@pytest.fixture
def unrain_run(unrain_run, weights):
    return lambda *words: unrain_run("run", *words, "-n", weights, *PLAIN)


@pytest.fixture
def make_clip(tmp_path):
    def make(name="in.mp4", frames=8):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            for picture in pictures(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return path

    return make


def pictures(count):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return [
        np.stack([128 + 60 * np.sin((rows + columns + 3 * number) / wave) for wave in (9, 13, 17)], -1).astype(np.uint8)
        for number in range(count)
    ]


def count_frames(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_clip_and_its_comparison(make_clip, unrain_run, tmp_path):
    code, out, err = unrain_run(make_clip(), "-o", tmp_path / "out.mp4", "--compare", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    (one,) = answer["files"]
    assert (one["status"], one["width"], one["height"], one["video"]["frames"]) == ("done", 64, 48, 8)
    assert one["video"]["passed_through"] == {} and one["video"]["latency_ms"]["p99"] > 0
    assert count_frames(tmp_path / "out.mp4") == count_frames(tmp_path / "out-compare.mp4") == 8
    assert not list(tmp_path.glob("*.part*"))


def test_a_clip_that_takes_longer_than_it_plays_says_so_on_the_same_line(make_clip, unrain_run, tmp_path, monkeypatch):
    monkeypatch.setattr("unrain.cli.pace.COSTS", {"wiper-s": 1e-6})
    monkeypatch.setattr(
        run_video, "pace", lambda engine, frames, seconds, rate: pace(engine, frames, 1e6 * seconds, rate)
    )
    code, out, err = unrain_run(make_clip(frames=3), "-o", tmp_path / "out.mp4")
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    assert "3 frames  0.0 frames/s, " in out and out.endswith(
        " times slower than the clip's 10; by its operations wiper-s would keep up\n"
    )


def test_a_folder_of_clips_and_pictures_goes_on_where_it_stopped(make_clip, unrain_run, tmp_path):
    for name in ("day/a.mp4", "day/b.mkv"):
        make_clip(name, frames=3)
    write_image(tmp_path / "day/c.png", pictures(1)[0])
    code, out, err = unrain_run(tmp_path / "day", "-o", tmp_path / "dry")
    assert (code, err) == (0, "") and out.startswith("3 derained")
    (tmp_path / "dry/b.mkv").unlink()
    (tmp_path / "dry/b.part.mkv").write_bytes(b"what an interrupted run left")
    code, out, _ = unrain_run(tmp_path / "day", "-o", tmp_path / "dry")
    assert code == 0 and out.startswith("1 derained, 2 skipped")
    assert sorted(path.name for path in (tmp_path / "dry").iterdir()) == ["a.mp4", "b.mkv", "c.png"]


def test_a_damaged_clip_is_one_line_and_a_playable_start(make_clip, unrain_run, tmp_path):
    clip = make_clip("in.ts", frames=60)
    data = clip.read_bytes()
    (tmp_path / "none.mp4").write_bytes(data[1000:1200])
    code, out, err = unrain_run(tmp_path / "none.mp4", "-o", tmp_path / "out.mp4")
    assert code == 1 and len(err.splitlines()) == 1 and "none.mp4" in err and out == ""
    assert not (tmp_path / "out.mp4").exists()


def test_carry_and_deadline(make_clip, unrain_run, tmp_path):
    code, out, _ = unrain_run(make_clip(), "-o", tmp_path / "o.mp4", "--carry", "state", "--max-frames", 5, "--json")
    assert code == 0 and json.loads(out)["files"][0]["video"]["frames"] == 5
    code, out, err = unrain_run(make_clip(), "-o", tmp_path / "o.mp4", "--deadline", 0.1, "--json")
    video = json.loads(out)["files"][0]["video"]
    raw = sum(video["passed_through"].values())
    assert video["frames"] == 8 == count_frames(tmp_path / "o.mp4")
    assert (code == 1 and "went through with their rain" in err) if raw else code == 0


def test_a_broken_network_is_one_line(make_clip, capfd, tmp_path):
    model = build("srn", channels=8, blocks=1, stages=1)
    with torch.no_grad():
        model.branch.f_out.bias.fill_(3e38)
    save(model, tmp_path / "bad.safetensors")
    words = ["run", str(make_clip()), "-o", str(tmp_path / "o.mp4"), "-n", str(tmp_path / "bad.safetensors"), *PLAIN]
    assert main(words) == 1
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1 and not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-", "-o", "x.mp4"], "need their size"),
        (["-", "--size", "64x48", "--pix-fmt", "yuv9"], "must be one of rgb24, bgr24, nv12"),
        (["-", "--size", "63x48", "--pix-fmt", "nv12"], "even sides"),
        (["camera:0", "-o", "folder"], "must name a video file"),
        (["rtsp://a/b", "camera:0", "-o", "x.mp4"], "must be the only input"),
        (["gopher://a/b", "-o", "x.mp4"], "gopher:// is none of"),
        (["no.mp4", "-o", "x.mp4"], "does not exist"),
        (["no.mp4", "-o", "-", "--json"], "leave --json out"),
        (["-", "--size", "64x48", "--rate", "0"], "--rate must be"),
    ],
)
def test_wrong_words_are_one_line(unrain_run, words, message):
    code, _, err = unrain_run(*words)
    assert code == 1 and message in err and len(err.splitlines()) == 1


def test_names_of_sources():
    assert camera("camera:3") == camera("/dev/video3") == "/dev/video3" and camera("video3") is None
    assert is_live("rtsp://host/x") and is_live("camera:0") and not is_live("a.mp4")
    assert parse_size("1280x720") == (720, 1280) and parse_rate("30000/1001") * 1001 == 30000
    with pytest.raises(UnrainError, match="WIDTHxHEIGHT"):
        parse_size("1280")


def test_two_clips_of_one_name_are_refused(make_clip, tmp_path):
    names = [str(make_clip("a/x.mp4")), str(make_clip("b/x.mp4"))]
    with pytest.raises(UnrainError, match="run them apart"):
        plan_videos(names, str(tmp_path / "out"), recursive=False, suffix="", ext="auto", compare=False)


# Pipes


def piped(weights, *words, **options):
    command = [*PROGRAM, "run", "-", "--size", "64x48", "-n", weights, *PLAIN, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr24", "nv12"])
def test_raw_formats_there_and_back(pix_fmt):
    picture = pictures(1)[0]
    data = from_rgb(picture, pix_fmt)
    assert data.nbytes == frame_bytes(SIZE, pix_fmt)
    back = to_rgb(data.reshape(-1), SIZE, pix_fmt)
    assert np.abs(back.astype(int) - picture).mean() < (2 if pix_fmt == "nv12" else 1e-9)


@pytest.mark.parametrize("pix_fmt", ["rgb24", pytest.param("nv12", marks=pytest.mark.slow)])
def test_raw_frames_through_a_pipe(weights, pix_fmt):
    frames = [from_rgb(picture, pix_fmt) for picture in pictures(6)]
    cut = frames[0].tobytes()[:1000] if pix_fmt == "rgb24" else b""  # the source ends inside a frame
    process = piped(weights, "--pix-fmt", pix_fmt)
    out, err = process.communicate(b"".join(frame.tobytes() for frame in frames) + cut, timeout=120)
    assert len(out) == 6 * frame_bytes(SIZE, pix_fmt)
    for number, frame in enumerate(frames):
        got = np.frombuffer(out, np.uint8).reshape(6, -1)[number].astype(int)
        assert np.abs(got - frame.reshape(-1)).mean() < 2
    if cut:
        assert process.returncode == 1 and err.decode().splitlines() == [
            "unrain: the input ended inside frame 7, 1000 of 9216 bytes: are --size and --pix-fmt right?"
        ]
    else:
        assert (process.returncode, err) == (0, b"")


def test_a_broken_pipe_ends_quietly(weights):
    process = piped(weights)
    frame = pictures(1)[0].tobytes()
    process.stdin.write(frame)
    process.stdin.flush()
    assert len(process.stdout.read(100)) == 100
    process.stdout.close()
    try:
        for _ in range(200):
            process.stdin.write(frame)
        process.stdin.close()
    except BrokenPipeError:
        pass
    assert process.wait(60) == 0 and process.stderr.read() == b""


@pytest.mark.parametrize(
    ("ending", "times"),
    [(signal.SIGINT, 1), (signal.SIGINT, 4), pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow)],
)
def test_ctrl_c_leaves_a_playable_file(weights, tmp_path, ending, times):
    """However often it is pressed."""
    process = piped(weights, "-o", str(tmp_path / "out.mp4"))
    frame = pictures(1)[0].tobytes()
    deadline = time.monotonic() + 60
    for _ in range(20):
        process.stdin.write(frame)
    process.stdin.flush()
    part = tmp_path / "out.part.mp4"
    while not part.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    for _ in range(times):
        process.send_signal(ending)
        time.sleep(0.1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"out.mp4 is playable up to there" in err and b"Traceback" not in err
    assert 0 < count_frames(tmp_path / "out.mp4") <= 20 and not part.exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg program on this machine")
def test_between_two_ffmpegs(weights, make_clip, tmp_path):
    raw = ["-f", "rawvideo", "-pix_fmt", "nv12"]
    words = " ".join([*PROGRAM, "run - --size 64x48 --pix-fmt nv12 -n", weights, *PLAIN])
    pipeline = (
        f"set -o pipefail; ffmpeg -v error -i {make_clip(frames=10)} {' '.join(raw)} - | {words} | "
        f"ffmpeg -v error {' '.join(raw)} -s 64x48 -r 10 -i - {tmp_path}/out.mkv"
    )
    done = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert count_frames(tmp_path / "out.mkv") == 10
