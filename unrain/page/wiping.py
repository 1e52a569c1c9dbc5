"""What becomes of an upload: the picture or clip as it came, and the same without rain, for a browser."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.errors import UnrainError
from ..engine.images import MIN_SIDE, READABLE, Picture, read_image, read_picture, write_picture
from ..engine.pictures import FOLDER
from ..opening import frame_function, load_model, memory_error, pick_device
from .jobs import Job

if TYPE_CHECKING:
    from ..engine.runtime import Engine
    from ..engine.video.frames import Frame, Sink, Source

FOREVER_MS = 1e9
ENGINES = 2  # kept ready, the last ones used
BUNDLED = FOLDER / "china.jpg"


class Wiper:
    """`wiper(job)` derains one upload. Only one thread may call it.

    models      what the page may choose, by the name it shows: the name or the weights file to load
    max_pixels  larger pictures and frames are refused
    max_frames  a clip is cut after so many
    """

    def __init__(
        self, models: Mapping[str, str], device: str, threads: int | None, max_pixels: int, max_frames: int
    ) -> None:
        self.models, self.max_pixels, self.max_frames = models, max_pixels, max_frames
        self._device, self._threads = device, threads
        self._engines: dict[tuple[str, str, str], tuple[Engine, Callable[[np.ndarray], np.ndarray]]] = {}

    def __call__(self, job: Job) -> None:
        name, backend, precision = (job.choices[key] for key in ("model", "backend", "precision"))
        longest = _number(job.choices.get("longest"), int, "longest side")
        kind = _kind(job.upload)
        engine, derain = self._engine(name, backend, precision)
        if kind == "picture":
            facts = self._picture(job, derain, longest)
        else:
            deadline = _number(job.choices.get("deadline"), float, "deadline")
            facts = self._clip(job, engine, longest, deadline)
        chosen = engine.explain()
        job.facts = {"kind": kind, "model": name, **{k: chosen[k] for k in ("backend", "precision", "device")}, **facts}

    def _engine(self, name: str, backend: str, precision: str) -> tuple[Engine, Callable[[np.ndarray], np.ndarray]]:
        from ..engine.runtime import Engine

        key = (name, backend, precision)
        if key not in self._engines:
            while len(self._engines) >= ENGINES:
                self._engines.pop(next(iter(self._engines)))
            model = load_model(self.models[name])
            # A visitor waits for one picture: a trial of the backends would cost more than the best of them saves.
            engine = Engine(model, backend, precision, pick_device(self._device), self._threads, trial_seconds=0.0)
            derain = frame_function(engine)
            derain(np.zeros((64, 64, 3), np.uint8))  # what is prepared once is not this picture's time
            self._engines[key] = engine, derain
        self._engines[key] = self._engines.pop(key)
        return self._engines[key]

    def _picture(self, job: Job, derain: Callable[[np.ndarray], np.ndarray], longest: int | None) -> dict[str, Any]:
        picture = _shrunk(read_picture(job.upload, self.max_pixels), longest)
        start = time.perf_counter()
        try:
            dry = derain(picture.rgb)
        except (RuntimeError, MemoryError) as error:
            raise memory_error(error, picture.rgb) or error from error
        milliseconds = (time.perf_counter() - start) * 1e3
        job.step(1)
        job.files = {"before": job.folder / "before.png", "after": job.folder / "after.png"}
        write_picture(job.files["before"], picture)
        write_picture(job.files["after"], picture.with_rgb(dry))
        height, width = dry.shape[:2]
        return {"width": width, "height": height, "frames": 1, "ms": milliseconds, "status": {"OK": 1}}

    def _clip(self, job: Job, engine: Engine, longest: int | None, deadline: float | None) -> dict[str, Any]:
        from ..engine.runtime import Stream
        from ..engine.video.container import ContainerSource
        from ..engine.video.pipeline import derain_all
        from ..engine.video.writer import VideoSink

        source = Shrunk(ContainerSource(str(job.upload), live=False), longest, self.max_pixels)
        try:
            total = min(source.video.frames or self.max_frames, self.max_frames)
            before, after = job.folder / "before.mp4", job.folder / "after.mp4"
            times: list[float] = []

            def process(rgb: np.ndarray, seconds: float) -> Any:
                picture, status = stream.process(rgb, seconds)
                times.append(status.milliseconds)
                return picture, status

            with Stream(engine, source.video.size, deadline or FOREVER_MS) as stream:
                if stream.self_test is not None:
                    raise UnrainError(f"the network fails its self-test: {stream.self_test}")
                sinks: list[Sink] = [Untouched(VideoSink(before, source.video)), VideoSink(after, source.video)]
                try:
                    report = derain_all(source, process, sinks, self.max_frames, lambda: job.step(total))
                except BaseException:
                    for sink in sinks:
                        sink.leave()
                    raise
                for sink in sinks:
                    sink.finish()
                counts = {key: n for key, n in stream.counters.outcomes.items() if n}
        finally:
            source.close()
        if not report.frames:
            raise UnrainError(report.cut_short or f"{job.upload} holds no frame that can be decoded")
        job.files = {"before": before, "after": after}
        height, width = source.video.size
        facts = {"width": width, "height": height, "frames": report.frames, "ms": statistics.median(times)}
        note = report.cut_short
        if report.frames == self.max_frames and (source.video.frames or 0) > self.max_frames:
            note = f"the first {report.frames} of {source.video.frames} frames"
        return {**facts, "status": counts, "reasons": dict(report.passed), "note": note}


class Shrunk:
    """A clip's frames, no longer than `longest`, with even sides, as the usual pixel format wants; and no sound."""

    live, stall_seconds = False, None

    def __init__(self, source: Source, longest: int | None, max_pixels: int) -> None:
        height, width = source.video.size
        if height * width > max_pixels:
            source.close()
            raise UnrainError(f"the clip has {width} x {height} pixels a frame, the limit is {max_pixels:,}")
        self._source = source
        height, width = _fitting(height, width, longest)
        size = (max(height // 2 * 2, MIN_SIDE), max(width // 2 * 2, MIN_SIDE))
        self.video = replace(source.video, size=size, rotation=0, audio=[])
        self.cut_short: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        from ..engine.video.frames import Frame

        for item in self._source:
            if isinstance(item, Frame):
                yield replace(item, rgb=_resized(item.rgb, *self.video.size), raw=None)
        self.cut_short = self._source.cut_short

    def close(self) -> None:
        self._source.close()


class Untouched:
    """Gives a sink the frames as they came."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.copy, self.finish, self.leave = sink.copy, sink.finish, sink.leave

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        self._sink.write(frame, frame.rgb)


def rainy_sample() -> bytes:
    """A bundled picture with rain of our own, as PNG."""
    from PIL import Image

    from ..engine.training.rain import add_rain, sample_parameters

    rainy = np.asarray(add_rain(read_image(BUNDLED), sample_parameters(np.random.default_rng(1), 0.6), 1))
    file = io.BytesIO()
    Image.fromarray(rainy).save(file, "PNG")
    return file.getvalue()


def _kind(path: Path) -> str:
    """By the first bytes: neither a name nor a guess of FFmpeg's decides what may read an upload."""
    with path.open("rb") as file:
        head = file.read(377)
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"P5", b"P6")):
        return "picture"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "picture"
    clip = (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide")
        or head.startswith((b"\x1aE\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba"))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G")
    )
    if clip:
        return "clip"
    raise UnrainError(f"{path} is neither a picture ({', '.join(READABLE)}) nor a clip (MP4, MKV, WebM, AVI, TS)")


def _number(text: str | None, kind: type, what: str) -> Any:
    """None for an empty field."""
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e7:
        raise UnrainError(f"the {what} must be a positive number, got {text[:20]!r}")
    return value


def _fitting(height: int, width: int, longest: int | None) -> tuple[int, int]:
    scale = min(1.0, (longest or max(height, width)) / max(height, width))
    return max(round(height * scale), MIN_SIDE), max(round(width * scale), MIN_SIDE)


def _shrunk(picture: Picture, longest: int | None) -> Picture:
    size = _fitting(*picture.rgb.shape[:2], longest)
    alpha = None if picture.alpha is None else _resized(picture.alpha, *size)
    return replace(picture, rgb=_resized(picture.rgb, *size), alpha=alpha)


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)).copy()
