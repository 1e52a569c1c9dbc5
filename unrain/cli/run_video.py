"""The side of `unrain run` that takes video: clips, cameras, network streams, and raw frames through pipes."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.console import complain, progress_bar
from ..engine.errors import UnrainError
from ..engine.images import make_folder
from ..engine.video.sources import CLIPS, PIPE, camera, check_scheme, is_clip, is_live, parse_rate, parse_size
from .interrupts import interrupt
from .pace import pace
from .plan import not_inside, refuse_clashes, without_earlier_results

if TYPE_CHECKING:
    from ..engine.runtime import Engine, Stream
    from ..engine.video.frames import Sink, Source
    from ..engine.video.pipeline import Report

STDIN, STDOUT = 0, 1
FOREVER_MS = 1e9  # frames of a file wait for their last stage


@dataclass(frozen=True)
class VideoJob:
    source: str
    target: str  # a file's name, or "-"
    compared: Path | None = None
    one_of_many: bool = False

    @property
    def outputs(self) -> list[Path]:
        results = [] if self.target == PIPE else [Path(self.target)]
        return [*results, *([self.compared] if self.compared else [])]

    @property
    def writes(self) -> list[Path]:
        from ..engine.video.writer import part_of

        return [*self.outputs, *map(part_of, self.outputs)]

    @property
    def done(self) -> bool:
        """In a folder, a result under its own name is a whole one."""
        return self.one_of_many and all(path.exists() for path in self.outputs)


@dataclass(frozen=True)
class VideoOptions:
    size: str | None = None
    pix_fmt: str | None = None
    rate: str | None = None
    carry: str | None = None
    deadline: float | None = None
    max_frames: int | None = None
    crf: int = 18


def is_video(name: str) -> bool:
    return name == PIPE or is_live(name) or is_clip(name)


def clips_in(folder: Path, recursive: bool) -> list[Path]:
    walk = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in walk if p.suffix.lower() in CLIPS and not p.name.startswith(".") and p.is_file())


def plan_videos(
    names: list[str], output: str, *, recursive: bool, suffix: str, ext: str, compare: bool
) -> list[VideoJob]:
    """One job per video. Folders among the names stand for the clips in them."""
    if len(names) > 1 and any(name == PIPE or is_live(name) for name in names):
        raise UnrainError("a camera, a network stream or a pipe must be the only input")
    name = names[0]
    if len(names) == 1 and not Path(name).is_dir() and (output == PIPE or _names_a_file(output)):
        if suffix or ext != "auto":
            raise UnrainError(f"{output} names the result; leave --suffix and --ext out, or give a folder")
        if compare and output == PIPE:
            raise UnrainError("--compare writes a second file; it needs -o with a file's name")
        target = Path(output)
        _check_there(name)
        jobs = [VideoJob(name, output, target.with_stem(f"{target.stem}-compare") if compare else None)]
        refuse_clashes(jobs)
        return jobs
    if any(name == PIPE or is_live(name) for name in names):
        raise UnrainError(f"-o must name a video file, like {Path(output) / 'out.mp4'}, for this input")
    return _into_folder(names, Path(output), recursive, suffix, ext, compare)


def _names_a_file(output: str) -> bool:
    return bool(Path(output).suffix) and not output.endswith(("/", "\\")) and not Path(output).is_dir()


def _check_there(name: str) -> None:
    if name == PIPE or camera(name):
        return
    if "://" in name:
        check_scheme(name)
    elif not Path(name).exists():
        raise UnrainError(f"{name} does not exist")


def _into_folder(
    names: list[str], folder: Path, recursive: bool, suffix: str, ext: str, compare: bool
) -> list[VideoJob]:
    from ..engine.video.writer import SUFFIXES

    jobs = []
    for name in dict.fromkeys(names):
        root = Path(name)
        _check_there(name)
        for clip in not_inside(folder, root, clips_in(root, recursive)) if root.is_dir() else [root]:
            below = clip.parent.relative_to(root) if root.is_dir() else Path()
            ending = f".{ext.lstrip('.').lower()}" if ext != "auto" else clip.suffix.lower()
            if ending not in SUFFIXES:
                if ext != "auto":
                    raise UnrainError(f"--ext must be one of {' '.join(SUFFIXES)} for video; got {ext!r}")
                ending = ".mp4"
            target = folder / below / f"{clip.stem}{suffix}{ending}"
            compared = target.with_stem(f"{target.stem}-compare") if compare else None
            jobs.append(VideoJob(str(clip), str(target), compared, one_of_many=True))
    jobs = without_earlier_results(jobs)
    refuse_clashes(jobs)
    return jobs


def run_video(job: VideoJob, engine: "Engine", options: VideoOptions) -> dict[str, Any]:
    """The fields of one result. Raises UnrainError where nothing came of it."""
    with _terminated_like_ctrl_c(), ExitStack() as stack:
        source = _open_source(job, options)
        before = stack.enter_context(ExitStack())
        before.callback(source.close)
        stream = stack.enter_context(_make_stream(engine, source, options))
        sinks = _open_sinks(job, source, options)
        before.pop_all()  # from here on the pipeline closes it
        start = time.perf_counter()
        report = _watch(job, source, stream, sinks, options)
        seconds = time.perf_counter() - start
    height, width = source.video.size
    error = _judge(job, report)
    return {
        "status": "failed" if error else "done",
        "error": error,
        "width": width,
        "height": height,
        "ms": round(seconds * 1e3 / report.frames, 1) if report.frames else None,
        "video": {
            "frames": report.frames,
            "late": report.late,
            "passed_through": dict(report.passed),
            "dropped": report.dropped,
            "interrupted": report.interrupted,
            "latency_ms": stream.stats()["latency_ms"],
            **(pace(engine, report.frames, seconds, float(source.video.rate)) if report.frames else {}),
        },
    }


def _judge(job: VideoJob, report: "Report") -> str | None:
    if report.interrupted:
        return f"stopped after {report.frames} frames; {_left_behind(job)} is playable up to there"
    if report.cut_short:
        return report.cut_short
    if report.passed:
        reason, _ = report.passed.most_common(1)[0]
        count = sum(report.passed.values())
        return f"{count} of {report.frames} frames of {job.source} went through with their rain: {reason}"
    return None


def _left_behind(job: VideoJob) -> str:
    from ..engine.video.writer import part_of

    return str(part_of(Path(job.target))) if job.one_of_many else job.target


def _open_source(job: VideoJob, options: VideoOptions) -> "Source":
    size = parse_size(options.size) if options.size else None
    rate = parse_rate(options.rate) if options.rate else None
    if job.source == PIPE:
        from ..engine.video.raw import RATE, RawSource

        if size is None:
            raise UnrainError("raw frames from a pipe need their size: unrain run - --size 1280x720 --pix-fmt nv12")
        return RawSource(STDIN, size, options.pix_fmt or "rgb24", rate or RATE)
    from ..engine.video.container import ContainerSource

    return ContainerSource(camera(job.source) or job.source, is_live(job.source), size, rate)


def _open_sinks(job: VideoJob, source: "Source", options: VideoOptions) -> "list[Sink]":
    from ..engine.video.raw import RawSink
    from ..engine.video.writer import VideoSink

    if job.target == PIPE:
        return [RawSink(STDOUT, options.pix_fmt or "rgb24", source.video.size)]
    make_folder(Path(job.target).parent)
    result = VideoSink(Path(job.target), source.video, options.crf)
    for codec in result.dropped_audio:
        complain(f"{job.target} cannot hold {codec} sound: it is left out (.mkv holds any)")
    sinks: list[Sink] = [result]
    if job.compared:
        sinks.append(VideoSink(job.compared, source.video, options.crf, compare=True))
    return sinks


def _make_stream(engine: "Engine", source: "Source", options: VideoOptions) -> "Stream":
    from ..engine.runtime import Stream

    deadline = options.deadline or FOREVER_MS
    stream = Stream(engine, source.video.size, deadline, options.carry, gap_ms=None if options.deadline else 500.0)
    if stream.self_test is not None:
        detail = stream.stats()["last_error"]
        stream.close()
        raise UnrainError(
            f"the network fails its self-test at {source.video.size[1]} x {source.video.size[0]} pixels: "
            f"{stream.self_test}" + (f" ({detail})" if detail else "")
        )
    return stream


def _watch(job: VideoJob, source: "Source", stream: "Stream", sinks: "list[Sink]", options: VideoOptions) -> "Report":
    from ..engine.video.pipeline import derain_all

    total = min((n for n in (source.video.frames, options.max_frames) if n is not None), default=None)
    with progress_bar() as bar:
        task = bar.add_task(Path(job.source).name, total=total)
        try:
            report = derain_all(source, stream.process, sinks, options.max_frames, lambda: bar.advance(task))
        except BaseException:
            _end(sinks, whole=False)
            raise
        _end(sinks, whole=not (report.interrupted and job.one_of_many))
    return report


def _end(sinks: "list[Sink]", whole: bool) -> None:
    for sink in sinks:
        sink.finish() if whole else sink.leave()


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """A service manager's TERM ends a clip as ctrl-C does: with a whole file."""
    try:
        before: Callable | int | None = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
