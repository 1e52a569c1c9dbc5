"""What a run must never do: destroy what it reads, write two results under one name, or end at one bad result."""

import json
import os

import numpy as np
import pytest
import torch

from unrain import build
from unrain.cli.plan import plan
from unrain.cli.run_video import plan_videos
from unrain.engine.errors import UnrainError
from unrain.engine.images import write_image

PLAIN = ["--backend", "eager", "--precision", "fp32", "--threads", "1"]


@pytest.fixture(scope="module")
def weights(saved):
    torch.manual_seed(0)
    return saved(build("srn", channels=8, blocks=1, stages=1))


@pytest.fixture
def unrain_run(unrain_run, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: unrain_run("run", *words, "-n", weights, *PLAIN)


@pytest.fixture
def names(tmp_path):
    """Empty files; plans do not look inside."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def videos(inputs, output, **options):
    how = {"recursive": False, "suffix": "", "ext": "auto", "compare": False, **options}
    return plan_videos([str(each) for each in inputs], str(output), **how)


def write_clip(path, size=(16, 16), frames=2):
    av = pytest.importorskip("av", reason="video needs PyAV: pip install 'unrain[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 90 + number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("same.mp4", ["-o", "same.mp4"]),
        ("same.mp4", ["-o", "./same.mp4"]),
        ("out.part.mp4", ["-o", "out.mp4"]),
        ("z-compare.mp4", ["-o", "z.mp4", "--compare"]),
        ("z-compare.part.mp4", ["-o", "z.mp4", "--compare"]),
        ("in.mp4", ["-o", "hard.mp4"]),
        ("in.mp4", ["-o", "soft.mp4"]),
    ],
)
def test_a_clip_is_not_written_onto_itself(unrain_run, tmp_path, source, words):
    write_clip(tmp_path / source)
    if source == "in.mp4":
        os.link(tmp_path / source, tmp_path / "hard.mp4")
        (tmp_path / "soft.mp4").symlink_to(tmp_path / source)
    before, listing = (tmp_path / source).read_bytes(), sorted(os.listdir(tmp_path))
    code, out, err = unrain_run(source, *words)
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert f"{source} would be overwritten by its own result" in err
    assert (tmp_path / source).read_bytes() == before and sorted(os.listdir(tmp_path)) == listing


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_picture_is_not_written_onto_itself_through_a_link(names, link):
    root = names("a.png")
    link(root / "a.png", root / "b.png")
    with pytest.raises(UnrainError, match="overwritten by its own result"):
        plan([root / "a.png"], str(root / "b.png"))


def test_the_result_of_one_is_not_written_over_another(names):
    root = names("a.mp4", "b.mp4", "a.png", "b.png")
    (root / "out").mkdir()
    for kind in ("mp4", "png"):
        os.link(root / f"a.{kind}", root / f"out/b.{kind}")
    with pytest.raises(UnrainError, match=r"a.mp4 would be overwritten by the result of .*b.mp4"):
        videos([root / "a.mp4", root / "b.mp4"], root / "out")
    with pytest.raises(UnrainError, match=r"a.png would be overwritten by the result of .*b.png"):
        plan([root / "a.png", root / "b.png"], str(root / "out"))


def test_clips_do_not_derain_their_own_results_again(names):
    root = names("in/a.mp4", "in/b.avi", "in/deep/c.mkv")
    for output, options in (("in/dry", {}), ("in", {"suffix": "_dry"}), ("in", {"suffix": "_dry", "compare": True})):
        first = videos([root / "in"], root / output, recursive=True, **options)
        for job in first:
            names(*(path.relative_to(root) for path in job.writes))  # an interrupted run leaves its .part, too
        assert videos([root / "in"], root / output, recursive=True, **options) == first
        assert len(first) == 3
        for job in first:
            for path in job.writes:
                path.unlink()


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_a_comparison_and_a_result_of_one_name_are_refused_before_anything_starts(names, kind):
    root = names(f"in/z.{kind}", f"in/z-compare.{kind}")
    make = videos if kind == "mp4" else lambda inputs, output, **options: plan(inputs, str(output), **options)
    with pytest.raises(UnrainError, match="would both be written to"):
        make([root / "in"], root / "out", compare=True)
    assert not (root / "out").exists() and len(make([root / "in"], root / "out")) == 2


def test_a_result_that_grows_under_the_name_of_another_is_refused(names):
    root = names("in/z.mp4", "in/z.part.mp4")
    with pytest.raises(UnrainError, match="would both be written to"):
        videos([root / "in"], root / "out")


def test_a_clip_given_twice_is_one_job(names):
    root = names("a.mp4")
    assert len(videos([root / "a.mp4", root / "a.mp4"], root / "out/")) == 1


def test_a_picture_that_its_format_cannot_hold_fails_alone(unrain_run, tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.png", np.zeros((8, 17_000, 3), np.uint8))
    write_image(tmp_path / "in/b.png", np.zeros((8, 8, 3), np.uint8))
    code, out, err = unrain_run("in", "-o", "out", "--ext", "webp", "--json")
    assert code == 1 and len(err.splitlines()) == 1 and "a.webp cannot be written" in err
    assert {file["input"]: file["status"] for file in json.loads(out)["files"]} == {
        os.path.join("in", "a.png"): "failed",
        os.path.join("in", "b.png"): "done",
    }
    assert os.listdir(tmp_path / "out") == ["b.webp"]


def test_a_clip_that_cannot_be_encoded_fails_alone(unrain_run, tmp_path, monkeypatch):
    from unrain.engine.video import writer

    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in/a.mp4", (16, 32))
    write_clip(tmp_path / "in/b.mp4", (16, 16))
    real = writer.VideoSink._add_video

    def impossible(self, quality):
        stream = real(self, quality)
        if self._video.size[1] == 32:
            stream.width = 20_000  # more than H.264 has
        return stream

    monkeypatch.setattr(writer.VideoSink, "_add_video", impossible)
    code, out, err = unrain_run("in", "-o", "out", "--json")
    assert code == 1 and len(err.splitlines()) == 1 and "a.mp4 cannot be written" in err
    assert [file["status"] for file in json.loads(out)["files"]] == ["failed", "done"]
    assert os.listdir(tmp_path / "out") == ["b.mp4"]


def test_a_clip_that_breaks_off_is_a_failure_with_its_numbers(unrain_run, tmp_path):
    write_clip(tmp_path / "whole.mkv", (48, 64), frames=20)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "in.mkv").write_bytes(data[: len(data) * 3 // 4])
    code, _, err = unrain_run("in.mkv", "-o", "out.mkv")
    assert code == 1 and len(err.splitlines()) == 1 and "of about 20 frames" in err
