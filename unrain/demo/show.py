"""Rains on three bundled pictures and a slow pan over one of them, derains them on the CPU, and prints one table."""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..cli.run_picture import side_by_side
from ..engine.console import complain, print_table, progress_bar
from ..engine.errors import UnrainError
from ..engine.evaluation.metrics import psnr_rgb
from ..engine.images import make_folder, read_image, write_image
from ..engine.models import WEIGHTS
from ..engine.pictures import FOLDER, SHOWERS
from ..engine.runtime import Engine, Stream
from ..engine.training.rain import add_rain, rain_on_video, shower
from ..opening import frame_function, load_model, pick_device

Frame: TypeAlias = np.ndarray  # uint8 RGB [H, W, 3]
Row: TypeAlias = tuple[str, str, str, str, str, str, str, str]

PANNED = "china.jpg"
SHOWN = ("srn", "mspfn-light", "wiper")  # the usual choice, the best of the shipped weights, and the one for video
TRIAL_SECONDS = 4.0  # a demo is for the first minute: what takes longer to build is left out of the trial
FRAMES, FPS = 20, 10
HEIGHT, WIDTH = 192, 288


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m unrain.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where the pictures go")
    parser.add_argument("--weights", type=Path, help=f"a weights file to show instead of {', '.join(SHOWN)}")
    chosen = parser.parse_args(arguments)
    try:
        return _show(chosen.out, chosen.weights)
    except UnrainError as error:
        complain(str(error))
        return 1


def _show(out: Path, weights: Path | None) -> int:
    names = [str(weights)] if weights else [name for name in SHOWN if (WEIGHTS / f"{name}.safetensors").is_file()]
    if not names:
        raise UnrainError("no weights are shipped yet, so there is nothing to show: train some with `unrain train srn`")
    make_folder(out)
    device = pick_device("cpu")
    loaded: list[Any] = [load_model(name) for name in names]
    rows: list[Row] = []
    with progress_bar() as bar:
        for model in bar.track(loaded, description="demo"):
            label, engine = str(model.name), Engine(model, device=device, trial_seconds=TRIAL_SECONDS)
            derain = frame_function(engine)
            rows += [_picture(file, severity, seed, label, derain, out) for file, severity, seed in SHOWERS]
            rows.append(_clip(label, engine, out))
    columns = ["model", "picture", " size", " ms/frame", " frames/s", " PSNR rainy", " PSNR derained", " gain"]
    print_table(columns, rows)
    print(f"Before and after, side by side, are in {out}/; PSNR is over RGB against the picture before the rain.")
    return 0


def _picture(file: str, severity: float, seed: int, label: str, derain: Callable[[Frame], Frame], out: Path) -> Row:
    clean = read_image(FOLDER / file)
    rainy = np.asarray(add_rain(clean, shower(severity, seed), seed))
    derain(rainy)  # the first call of a size chooses the backend, and builds what it needs
    start = time.perf_counter()
    dry = derain(rainy)
    ms = (time.perf_counter() - start) * 1e3
    stem = Path(file).stem
    write_image(out / f"{stem}-rainy.png", rainy)
    write_image(out / f"{stem}-{label}.png", dry)
    write_image(out / f"{stem}-{label}-compare.png", side_by_side(rainy, dry))
    return _row(label, stem, rainy, (f"{ms:.0f}", ""), psnr_rgb(rainy, clean), psnr_rgb(dry, clean))


def _clip(label: str, engine: Engine, out: Path) -> Row:
    """Through a Stream, which carries the state of a network that was made for video."""
    clean, rainy = shot()
    dry, ms = derained(rainy, label, engine)
    written = write_video(out / f"pan-{label}.mp4", [side_by_side(a, b) for a, b in zip(rainy, dry, strict=True)])
    if not written:
        complain("the clip is not written: pip install 'unrain[video]'")
    before = statistics.mean(psnr_rgb(a, b) for a, b in zip(rainy, clean, strict=True))
    after = statistics.mean(psnr_rgb(a, b) for a, b in zip(dry, clean, strict=True))
    return _row(label, f"clip, {FRAMES} frames", rainy[0], (f"{ms:.0f}", f"{1e3 / ms:.1f}"), before, after)


def shot() -> tuple[list[Frame], list[Frame]]:
    """The clip's frames before the rain and in it."""
    clean = list(pan(read_image(FOLDER / PANNED)))
    return clean, list(rain_on_video(iter(clean), shower(0.45, 4), seed=4, fps=FPS))


def derained(rainy: list[Frame], label: str, engine: Engine) -> tuple[list[Frame], float]:
    """The frames, and the median milliseconds that one took."""
    with Stream(engine, (HEIGHT, WIDTH), math.inf) as stream:
        if stream.self_test is not None:
            raise UnrainError(f"{label} fails its self-test: {stream.self_test}")
        dry = [stream.process(frame, number / FPS)[0].copy() for number, frame in enumerate(rainy)]
        return dry, stream.stats()["latency_ms"]["p50"]


def _row(label: str, picture: str, frame: Frame, speed: tuple[str, str], before: float, after: float) -> Row:
    size = f"{frame.shape[1]} x {frame.shape[0]}"
    return label, picture, size, *speed, f"{before:.2f} dB", f"{after:.2f} dB", f"{after - before:+.2f} dB"


def pan(scene: Frame) -> Iterator[Frame]:
    """A camera that turns slowly to the right over a still scene."""
    height, width = scene.shape[:2]
    for number in range(FRAMES):
        share = number / (FRAMES - 1)
        left, top = round(share * (width - WIDTH) / 3), round(share * (height - HEIGHT) / 3)
        yield np.ascontiguousarray(scene[top : top + HEIGHT, left : left + WIDTH])


def write_video(path: Path, frames: list[Frame]) -> bool:
    """H.264 where the installed PyAV has it, else MPEG-4; False without PyAV."""
    try:
        import av
    except ImportError:
        return False
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS)
        height, width = (side // 2 * 2 for side in frames[0].shape[:2])  # the usual pixel format wants even sides
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            even = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return True
