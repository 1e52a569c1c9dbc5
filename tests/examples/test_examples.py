"""Every example runs: the scripts, each command line of pipes.md as it is written, and the notebook's cells."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import unrain
from unrain.demo.show import pan, write_video
from unrain.engine.images import read_image
from unrain.engine.pictures import FOLDER

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUNDLED = FOLDER / "china.jpg"
SIZE = "160x120"


@pytest.fixture(scope="module")
def weights(saved):
    """The quickest of the shipped networks, cut to two stages."""
    model = unrain.load("stagewise")
    model.stages = 2
    return saved(model)


@pytest.fixture
def clip(tmp_path):
    pytest.importorskip("av", reason="video needs PyAV")
    path = tmp_path / "rainy.mp4"
    frames = [frame[:120, :160].copy() for frame in pan(read_image(BUNDLED))]
    assert write_video(path, frames)
    return path


def run(*words, folder: Path, **environment) -> str:
    """One command line, in that folder; what it printed."""
    scripts = Path(sys.executable).parent
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", **environment}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture
def example(capfd, monkeypatch, tmp_path):
    """Run a script as `python examples/NAME WORDS` would, in an empty folder; what it printed."""

    def run_script(name: str, *words) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capfd.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capfd.readouterr().out

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run_script
    torch.set_num_threads(before)


def test_live_camera_without_a_camera(example, clip, weights, tmp_path):
    said = example(
        "live_camera.py",
        *(clip, "--no-window", "--frames", 4, "--save", "last.png", "--model", weights, "--deadline", 60_000),
    )
    assert len(re.findall(r"^frame \d: OK \d+ ms, 2 stages \| 0 late, 0 raw$", said, re.M)) == 4
    assert "4 frames; latency p50" in said
    bar = read_image(tmp_path / "last.png")[0]
    assert (bar == (46, 160, 67)).all(1).mean() > 0.8  # green, but for the letters


def test_live_camera_says_when_it_is_late(example, clip, weights):
    said = example("live_camera.py", clip, "--no-window", "--frames", 3, "--deadline", 0.5, "--model", weights)
    assert "PASSTHROUGH" in said and "no stage was ready at the deadline" in said


def test_live_camera_reads_files_without_opencv(example, clip, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    said = example("live_camera.py", clip, "--no-window", "--frames", 1, "--model", weights, "--deadline", 60_000)
    assert "frame 1: OK" in said


def test_any_detector_behind_the_wiper(example, clip, weights, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def find(frame):\n"
        "    assert frame.dtype == 'uint8' and frame.shape == (120, 160, 3)\n"
        "    return [[x, 0, x + 40, 120] for x in range(0, 160, 40) if frame[:, x : x + 40].mean() > 150]\n"
    )
    words = ("--detector", "mine:find", "--frames", 3, "--model", weights, "--severity", 0.8)
    said = example("detector.py", clip, *words)
    assert re.search(r"clean +precision 1\.000 +recall 1\.000", said)
    assert re.search(r"derained +precision [\d.]+ +recall [\d.]+ ", said)


def test_people_behind_the_wiper(example, shared, weights):
    cv2 = pytest.importorskip("cv2", reason="the people detector needs OpenCV")
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip("this OpenCV comes without the people detector")
    clip = shared("data/video/clean/vtest.avi")
    said = example("detector.py", clip, "--frames", 1, "--model", weights)
    assert int(re.search(r"clean .* (\d+) boxes", said)[1]) > 0


def test_nowcasting_learns_the_same_when_accelerated(example):
    said = example("nowcasting.py", "--seconds", 2)
    assert said.count("LSTM step") == said.count("lstm_gates") == 2
    assert float(re.search(r"losses agree within ([\d.]+) %", said)[1]) < 0.1
    assert float(re.search(r"([\d.]+) times as fast", said)[1]) > 0


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (EXAMPLES / "pipes.md").read_text(), re.M | re.S)


def test_pipes_begin_with_their_settings():
    assert blocks()[0] == "SIZE=1280x720 RATE=30 MODEL=srn\n" and len(blocks()) == 8


@pytest.mark.parametrize("number", range(1, 8))
def test_command_lines_as_they_are_written(number, clip, weights, tmp_path):
    block = blocks()[number]
    for program in ("ffmpeg", "gst-launch-1.0"):
        if program in block and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    make_rainy(clip, tmp_path)
    run("bash", "-euo", "pipefail", "-c", block, folder=tmp_path, SIZE=SIZE, RATE="10", MODEL=weights)
    made = sorted({path.name for path in tmp_path.iterdir()} - {"rainy.mp4", "rainy.mkv"})
    assert made, "nothing was written"
    import av

    for name in made:
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 3, name


def make_rainy(clip: Path, folder: Path) -> None:
    """Three frames in a file that both programs decode without further packages."""
    import av

    with av.open(str(clip)) as source, av.open(str(folder / "rainy.mkv"), "w") as target:
        stream = target.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
        for number, frame in enumerate(source.decode(video=0)):
            if number < 3:
                target.mux(stream.encode(frame.reformat(format="yuvj420p")))
        target.mux(stream.encode())


def test_the_notebook(tmp_path, monkeypatch, capsys):
    """Its cells one after the other in one namespace; the last expression is what a notebook would show."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text())
    assert notebook["nbformat"] == 4
    names, shown = {"__name__": "__main__"}, []
    threads = torch.get_num_threads()
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "commit the notebook without outputs"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "tour.ipynb", "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), "tour.ipynb", "eval"), names))
    torch.set_num_threads(threads)
    assert shown[0] == unrain.models() and shown[2].size == (2 * 288, 192)
    said = capsys.readouterr().out
    assert "0 stages:" in said and "4 stages:" in said and "OK " in said
    assert re.search(r"LSTM step +fused +lstm_gates", said)


def test_every_example_is_listed_and_short():
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.name != "README.md" and not path.name.startswith((".", "__")):
            assert f"({path.name})" in listed, path.name
        if path.suffix == ".py":
            assert len(path.read_text().splitlines()) <= 120, path.name
