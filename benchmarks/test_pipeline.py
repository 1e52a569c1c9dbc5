"""The stages of a video pipeline one by one, and from frame to frame: `-k pipeline`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from case import Absent, Case, race

from unrain import Engine, load, record
from unrain.engine.images import read_image
from unrain.engine.pictures import FOLDER
from unrain.engine.video.container import ContainerSource
from unrain.engine.video.frames import Frame, Video
from unrain.engine.video.packages import exact
from unrain.engine.video.writer import VideoSink
from unrain.kernels import frame_to_tensor, tensor_to_frame

SIZE, FRAMES, COMPUTED = (720, 1280), 12, (128, 192)


@cache
def pictures(count: int = FRAMES, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """A picture that wanders, so that a codec has something to do."""
    picture = read_image(FOLDER / "rocket.jpg")
    tiles = [-(-wanted // side) + 1 for wanted, side in zip(size, picture.shape[:2], strict=True)]
    wide = np.tile(picture, (*tiles, 1))
    return [np.ascontiguousarray(wide[3 * i : 3 * i + size[0], 5 * i : 5 * i + size[1]]) for i in range(count)]


def video() -> Video:
    return Video(SIZE, Fraction(30), Fraction(1, 30), frames=FRAMES)


def write_ours(path: Path) -> Path:
    sink = VideoSink(path, video())
    for index, picture in enumerate(pictures()):
        sink.write(Frame(picture, index, index / 30), picture)
    sink.finish()
    return path


def decode(folder: Path) -> Case:
    clip = write_ours(folder / "clip.mp4")

    def ours() -> list[np.ndarray]:
        source = ContainerSource(str(clip), live=False)
        found = [item.rgb for item in source if isinstance(item, Frame)]
        source.close()
        return found

    def plain(**conversion) -> list[np.ndarray]:
        import av

        with av.open(str(clip)) as container:
            container.streams.video[0].thread_type = "AUTO"
            return [frame.to_ndarray(format="rgb24", **conversion) for frame in container.decode(video=0)]

    def as_exact() -> list[np.ndarray]:
        return plain(**exact())

    def opencv() -> list[np.ndarray]:
        import cv2

        capture, found = cv2.VideoCapture(str(clip)), []
        while (read := capture.read())[0]:
            found.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        return found

    return Case(
        f"decode, {FRAMES} frames of 720p H.264",
        {
            "unrain": ours,
            "PyAV, colours as exact": near(as_exact, ours),
            "PyAV": near(plain, ours),
            "OpenCV": near(opencv, ours),
        },
        ours,
        FRAMES * SIZE[0] * SIZE[1] * 3,
        rounds=7,
    )


def near(contender, ours):
    """Decoders round colours differently: one that is within 8 codes on average decodes the same clip."""
    checked = []

    def run():
        found = contender()
        if not checked:
            reference = ours()
            if len(found) != len(reference):
                raise Absent(f"it gives {len(found)} frames of {len(reference)}")
            worst = max(np.abs(a.astype(int) - b).mean() for a, b in zip(found, reference, strict=True))
            if worst > 8:
                raise Absent(f"it gives another picture, {worst:.1f} codes off on average")
            checked.append(True)
            return reference
        return found

    return run


def encode(folder: Path) -> Case:
    def ours() -> np.ndarray:
        return frames_in(write_ours(folder / "ours.mp4"))

    def plain(**conversion) -> np.ndarray:
        import av

        path = folder / "plain.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "18", "preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            for picture in pictures():
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(format="yuv420p", **conversion) if conversion else frame
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return frames_in(path)

    return Case(
        f"encode, {FRAMES} frames of 720p to H.264",
        {"unrain": ours, "PyAV, colours as exact": lambda: plain(**exact()), "PyAV": plain},
        lambda: np.array([FRAMES]),
        FRAMES * SIZE[0] * SIZE[1] * 3,
        rounds=9,
    )


def frames_in(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.array([container.streams.video[0].frames])


def upload(folder: Path) -> Case:
    frame = pictures(1)[0]

    def usual(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.from_numpy(frame).permute(2, 0, 1)[None].to(dtype).div(255).contiguous()

    return Case(
        "upload, a 720p frame to a float tensor",
        {"unrain": lambda: frame_to_tensor(frame), "from_numpy, permute, float, divide": usual},
        lambda: usual(torch.float64),
        frame.size * 5,
    )


def download(folder: Path) -> Case:
    x = frame_to_tensor(pictures(1)[0])

    def usual() -> np.ndarray:
        return (x[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    return Case(
        "download, a float tensor to a 720p frame",
        {"unrain": lambda: tensor_to_frame(x), "clamp, scale, round, permute": usual},
        usual,
        x.numel() * 5,
    )


def compute(folder: Path) -> Case:
    """Frame to frame: uint8 picture in, uint8 picture out, all that lies between."""
    model = load("srn")
    engine = Engine(model, "fused", "fp32", device="cpu")
    frame = pictures(1, COMPUTED)[0]

    @torch.inference_mode()
    def usual(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].to(dtype) / 255
        return model.to(dtype)(F.pad(x, (0, 0, 0, 0))).clamp(0, 1).mul(255)[0].permute(1, 2, 0)

    def rounded() -> np.ndarray:
        return usual().round().byte().numpy()

    return Case(
        "frame to frame, srn at 128 x 192",
        {"unrain": lambda: engine(frame), "eager PyTorch": rounded},
        rounded,
        frame.size * 2,
        plain=rounded,
        rounds=7,
    )


def camera(folder: Path) -> Case:
    """A camera's NV12 frame to another one, every frame by itself: in C, and as `unrain run --pix-fmt nv12` does."""
    from c_library import F32, NV12, Library, install, missing_tools, set_up

    from unrain.engine.video.raw import from_rgb, to_rgb

    model = load("wiper")
    engine = Engine(model, "fused", "fp32", device="cpu")
    frame = from_rgb(pictures(1)[0], "nv12")

    @cache
    def context():
        if missing := missing_tools():
            raise Absent(f"{', '.join(missing)} not found: libunrain is not built")
        (folder / "checkout").mkdir()
        prefix = install(set_up(folder / "checkout"), folder / "installed")
        library = Library(next(prefix.glob("**/libunrain.so")))
        record(model).save(folder / "wiper.unrain")
        options = library.options(SIZE[1], SIZE[0], input=NV12, output=NV12, precision=F32, carry=0, threads=2)
        return library.context(library.program(folder / "wiper.unrain"), options)

    def in_c() -> list[np.ndarray]:
        return context().derained(*np.split(frame, [SIZE[0]]))

    def in_python() -> list[np.ndarray]:
        return np.split(from_rgb(engine(to_rgb(frame, SIZE, "nv12")), "nv12"), [SIZE[0]])

    return Case(
        "NV12 to NV12, wiper at 720p",
        {"unrain": in_c, "unrain, Engine in Python": near(in_python, in_c)},
        in_c,
        frame.size * 2,
        plain=in_c,
        rounds=7,
    )


STAGES = {
    "decode": decode,
    "upload": upload,
    "compute": compute,
    "download": download,
    "encode": encode,
    "camera": camera,
}
CONTENDERS = {
    "decode": ("unrain", "PyAV, colours as exact", "PyAV", "OpenCV"),
    "upload": ("unrain", "from_numpy, permute, float, divide"),
    "compute": ("unrain", "eager PyTorch"),
    "download": ("unrain", "clamp, scale, round, permute"),
    "encode": ("unrain", "PyAV, colours as exact", "PyAV"),
    "camera": ("unrain", "unrain, Engine in Python"),
}


@pytest.mark.parametrize(("name", "contender"), [(stage, each) for stage in STAGES for each in CONTENDERS[stage]])
def test_pipeline(name, contender, compete, request, tmp_path_factory):
    if name in ("decode", "encode", "camera"):
        pytest.importorskip("av", reason="video needs PyAV: pip install 'unrain[video]'")

    def run_race(names):
        case = STAGES[name](tmp_path_factory.mktemp("pipeline"))
        rounds = request.config.getoption("--rounds")
        return race(replace(case, rounds=rounds) if rounds else case, names)

    compete("pipeline", name, contender, run_race)
