"""`unrain run`: take the rain out of pictures and video."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..engine.console import complain, print_json, progress_bar
from ..engine.errors import UnrainError
from ..engine.images import MAX_PIXELS, make_folder
from ..opening import DEFAULT_MODEL, asked_for, byte_count, frame_function, prepare_engine, tile_size
from .pace import in_words
from .plan import Job, holds_pictures, plan
from .run_picture import Result, derain_picture
from .run_video import VideoJob, VideoOptions, clips_in, is_video, plan_videos, run_video

if TYPE_CHECKING:
    from ..engine.runtime import Engine

# For fewer pictures than this, a trial of the backends costs more time than the best of them would save.
_MANY = 20


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IN...",
            help="Pictures, clips, folders of them; camera:0, /dev/video0, rtsp://...; or - for raw frames on stdin.",
            show_default=False,
        ),
    ] = None,
    more_sources: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="The same as IN.", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="The result's file name, a folder, or - for raw frames on stdout."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--name",
            "--model",
            help=f"A model of `unrain models`, or a weights file; {DEFAULT_MODEL} when left out.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("-w", "--weights", help="Weights for the model instead of those shipped with it.")
    ] = None,
    stages: Annotated[
        int | None, typer.Option("--stages", "-T", min=1, max=100, help="How often a recurrent model runs.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    gpu: Annotated[int | None, typer.Option("-g", "--gpu", min=0, help="The GPU to use: -g 1 is cuda:1.")] = None,
    backend: Annotated[str, typer.Option("--backend", help="auto, eager, ...: see `unrain info`.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads; by default all.")
    ] = None,
    tile: Annotated[
        str, typer.Option("-t", "--tile", help="Pixels a side that are computed at once; auto, or none for never.")
    ] = "auto",
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", help="What a picture may take beside the weights: 800M, 2G; 1G by default."),
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="How much of the rain is taken out: 0 none of it, 1 all.")
    ] = 1.0,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Also the folders inside a folder.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write NAME-compare: before and after, side by side.")
    ] = False,
    suffix: Annotated[str, typer.Option("--suffix", help="Put behind each name: --suffix _dry gives a_dry.png.")] = "",
    ext: Annotated[str, typer.Option("--ext", help="Format: auto (as the input), png, jpg, ...")] = "auto",
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of JPEG and WebP results.")] = 95,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Redo results that are there already; else they are skipped."),
    ] = False,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=64, help="Refuse larger pictures.")] = MAX_PIXELS,
    carry: Annotated[
        str | None,
        typer.Option(
            "--carry",
            help="Start a frame of a video from the one before it: state (for fewer stages, -T 2) or image; "
            "a network made for video does so by itself, unless: nothing.",
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", min=0.1, help="Milliseconds a frame may take; an earlier stage then goes out."),
    ] = None,
    max_frames: Annotated[int | None, typer.Option("--max-frames", min=1, help="Stop a video after so many.")] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="1280x720: of raw frames on stdin, or asked of a camera.")
    ] = None,
    pix_fmt: Annotated[
        str | None, typer.Option("--pix-fmt", help="Of raw frames on stdin and stdout: rgb24, bgr24 or nv12.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Frames per second of raw frames on stdin, or asked of a camera.")
    ] = None,
    crf: Annotated[int, typer.Option("--crf", min=0, max=51, help="H.264's quality: less is better and larger.")] = 18,
    ray: Annotated[bool, typer.Option("--ray", help="Share the pictures out over a Ray cluster.")] = False,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="Of that cluster; else RAY_ADDRESS, else one is started here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Take the rain out of pictures and video.

    A result named by a file replaces that file; in a folder, results that are there already are skipped, so that an
    interrupted run goes on where it stopped. Transparency, grey and the colour profile of pictures are kept; 16-bit
    pictures come out with 8 bits. Video keeps its frames' times, its rotation and its sound; ctrl-C leaves a whole
    file. A camera or network stream drops to its newest frame rather than lag. Raw frames go through a pipe like this:
    ffmpeg ... -f rawvideo -pix_fmt nv12 - | unrain run - --size 1280x720 --pix-fmt nv12 | ffmpeg -f rawvideo ...
    The exit code is 0 only when every picture, and every frame, succeeded.
    """
    inputs = [*(sources or []), *(more_sources or [])]
    output = _where_to(inputs, output, as_json)
    if "/" in suffix or "\\" in suffix:
        raise UnrainError(f"--suffix goes behind a name, so it cannot hold a folder; got {suffix!r}")
    if gpu is not None and device != "auto":
        raise UnrainError("--gpu and --device say the same thing; give one of them")
    network, own = asked_for(name, weights)
    place = device if gpu is None else f"cuda:{gpu}"
    memory = None if max_memory is None else byte_count(max_memory)
    settings = {"tile": tile_size(tile), "max_memory": memory, "strength": strength}
    todo = _planned(inputs, output, overwrite, recursive=recursive, suffix=suffix, ext=ext, compare=compare)
    answer: dict[str, Any] = {"model": network, "weights": str(weights) if weights else None}
    results = todo.skipped
    if ray or ray_address:
        if todo.of_videos or not todo.in_folder:
            raise UnrainError("--ray derains pictures into a folder; leave it out for a video or a single file")
        if todo.pictures:
            from .run_ray import derain_on_ray

            ended, answer["ray"] = derain_on_ray(
                todo.pictures,
                Path(output),
                ray_address,
                name=network,
                weights=own and own.absolute(),
                stages=stages,
                device=place,
                threads=threads,
                backend=backend,
                precision=precision,
                max_pixels=max_pixels,
                quality=quality,
                overwrite=overwrite,
                settings=settings,
            )
            results += ended
    elif todo.pictures or todo.videos:
        seconds = 0.0 if len(todo.pictures) < _MANY and not todo.videos else None
        engine, details = prepare_engine(network, own, stages, place, threads, backend, precision, seconds, settings)
        answer.update(details)
        if todo.pictures:
            results += _pictures(todo.pictures, frame_function(engine), max_pixels, quality)
        results += _videos(todo.videos, engine, VideoOptions(size, pix_fmt, rate, carry, deadline, max_frames, crf))
        answer["engine"] = engine.explain()
    counts = {status: sum(result.status == status for result in results) for status in ("done", "failed", "skipped")}
    if as_json:
        print_json({**answer, **counts, "files": [asdict(result) for result in results]})
    elif output != "-" and not (todo.of_videos == len(results) == counts["failed"] == 1):  # its one line is said
        print(_summary(results, counts) + _rate(answer.get("ray")))
    if counts["failed"]:
        raise typer.Exit(1)


def _where_to(inputs: list[str], output: str | None, as_json: bool) -> str:
    """The name of the result, which raw frames on stdin alone may do without."""
    if not inputs:
        raise UnrainError("no input: unrain run IN -o OUT")
    if output is None and inputs == ["-"]:
        output = "-"
    if output is None:
        raise typer.BadParameter("-o says where the result goes: a file, or a folder")
    if "" in inputs or output == "":
        raise UnrainError("the name of an input or of the result is empty")
    if output == "-" and as_json:
        raise UnrainError("stdout carries the frames; leave --json out, or name a file with -o")
    return output


class _ToDo(NamedTuple):
    """The jobs that are left, and the results of those that were done before."""

    pictures: list[Job]
    videos: list[VideoJob]
    skipped: list[Result]
    in_folder: bool  # the pictures' results, of which there may be many
    of_videos: int  # done or not


def _planned(inputs: list[str], output: str, overwrite: bool, **names: Any) -> _ToDo:
    """What there is to do, and the folders made for it; `names` are the options that say what a result is called."""
    pictures, videos = _sort(inputs, names["recursive"])
    jobs: list[Job] = []
    if pictures:
        if output == "-":
            raise UnrainError("-o - writes the raw frames of a video; name a file or a folder for pictures")
        jobs = plan(pictures, output, **names)
    video_jobs: list[VideoJob] = []
    if videos:
        target = output if len(videos) == len(inputs) or output == "-" else f"{output}/"
        video_jobs = plan_videos(videos, target, **names)
    in_folder = len(jobs) > 1 or (bool(jobs) and jobs[0].target != Path(output))
    done: set[Job | VideoJob] = set()
    if not overwrite:
        done |= {job for job in jobs if in_folder and all(path.exists() for path in job.outputs)}
        done |= {job for job in video_jobs if job.done}
    todo = _ToDo(
        [job for job in jobs if job not in done],
        [job for job in video_jobs if job not in done],
        [Result(str(job.source), str(job.target), "skipped") for job in (*jobs, *video_jobs) if job in done],
        in_folder,
        len(video_jobs),
    )
    for folder in {job.target.parent for job in todo.pictures}:
        make_folder(folder)
    return todo


def _sort(inputs: list[str], recursive: bool) -> tuple[list[Path], list[str]]:
    """Pictures and folders that may hold some; videos and folders that hold some."""
    videos = [name for name in inputs if is_video(name)]
    pictures = [Path(name) for name in inputs if name not in videos]
    with_clips = [folder for folder in pictures if folder.is_dir() and clips_in(folder, recursive)]
    only_clips = [folder for folder in with_clips if not holds_pictures(folder, recursive)]
    return [path for path in pictures if path not in only_clips], [*videos, *map(str, with_clips)]


def _pictures(jobs: list[Job], derain: Callable, max_pixels: int, quality: int) -> list[Result]:
    results = []
    with progress_bar() as bar:
        for job in bar.track(jobs, description="derain") if len(jobs) > 1 else jobs:
            results.append(derain_picture(job, derain, max_pixels, quality))
    return results


def _videos(jobs: list[VideoJob], engine: "Engine", options: VideoOptions) -> list[Result]:
    results = []
    for job in jobs:
        results.append(_one_video(job, engine, options))
        if (results[-1].video or {}).get("interrupted"):
            raise typer.Exit(130)
    return results


def _one_video(job: VideoJob, engine: "Engine", options: VideoOptions) -> Result:
    result = Result(job.source, job.target, "failed")
    try:
        for field, value in run_video(job, engine, options).items():
            setattr(result, field, value)
    except UnrainError as error:
        result.error = str(error)
    if result.error:
        complain(result.error)
    return result


def _rate(ray: dict[str, Any] | None) -> str:
    return f"; {ray['pictures_per_second']} pictures/s on {ray['workers']} workers" if ray else ""


def _summary(results: list[Result], counts: dict[str, int]) -> str:
    if len(results) == 1 and counts["done"]:
        one = results[0]
        if one.video:
            rate = in_words(one.video) if one.ms else ""
            dropped = f", {one.video['dropped']} dropped" if one.video["dropped"] else ""
            counted = f"{one.video['frames']} frames{dropped}"
            return f"{one.input} -> {one.output}  {one.width} x {one.height}  {counted}  {rate}"
        return f"{one.input} -> {one.output}  {one.width} x {one.height}  {one.ms:.0f} ms"
    parts = [f"{counts['done']} derained"]
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} skipped, already there (--overwrite redoes them)")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    times = sorted(result.ms for result in results if result.ms)
    return ", ".join(parts) + (f"; median {times[len(times) // 2]:.0f} ms" if times else "")
