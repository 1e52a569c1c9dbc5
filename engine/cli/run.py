"""`unrain run`: take the rain out of a picture, several, or a folder of them."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UnrainError
from ..images import MAX_PIXELS, make_folder, read_picture, write_image, write_picture
from .console import complain, print_json, progress_bar
from .plan import Job, plan
from .wiper import DEFAULT_MODEL, frame_function, load_model, memory_error, pick_device

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Result:
    input: str
    output: str
    status: str  # done, failed or skipped
    width: int | None = None
    height: int | None = None
    ms: float | None = None
    error: str | None = None


def command(
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="IN...", help="Pictures, or folders of pictures.", show_default=False)
    ] = None,
    more_sources: Annotated[
        list[Path] | None, typer.Option("-i", "--input", help="The same as IN.", show_default=False)
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="The result's file name, or a folder.")] = ...,  # type: ignore[assignment]
    name: Annotated[
        str, typer.Option("-n", "--name", "--model", help="A model of `unrain models`, or a weights file.")
    ] = DEFAULT_MODEL,
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
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; by default all.")] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Take the rain out of pictures.

    A result named by a file replaces that file; in a folder, results that are there already are skipped, so that an
    interrupted run goes on where it stopped. Transparency, grey and the colour profile are kept; 16-bit pictures come
    out with 8 bits. The exit code is 0 only when every picture succeeded.
    """
    inputs = [*(sources or []), *(more_sources or [])]
    if not inputs:
        raise UnrainError("no input: unrain run IN -o OUT")
    if gpu is not None and device != "auto":
        raise UnrainError("--gpu and --device say the same thing; give one of them")
    jobs = plan(inputs, output, recursive=recursive, suffix=suffix, ext=ext, compare=compare)
    in_folder = len(jobs) > 1 or jobs[0].target != Path(output)
    waiting = [job for job in jobs if overwrite or not (in_folder and _is_done(job))]
    for folder in {job.target.parent for job in waiting}:
        make_folder(folder)
    answer: dict[str, Any] = {"model": name, "weights": str(weights) if weights else None}
    results = [_skipped(job) for job in jobs if job not in waiting]
    if waiting:
        derain, details = _prepare(
            name, weights, stages, device if gpu is None else f"cuda:{gpu}", threads, backend, precision
        )
        answer.update(details)
        results += _work(waiting, derain, max_pixels, quality)
    counts = {status: sum(result.status == status for result in results) for status in ("done", "failed", "skipped")}
    if as_json:
        print_json({**answer, **counts, "files": [asdict(result) for result in results]})
    else:
        print(_summary(results, counts))
    if counts["failed"]:
        raise typer.Exit(1)


def _is_done(job: Job) -> bool:
    return all(path.exists() for path in job.outputs)


def _skipped(job: Job) -> Result:
    return Result(str(job.source), str(job.target), "skipped")


def _prepare(
    name: str, weights: Path | None, stages: int | None, device: str, threads: int | None, backend: str, precision: str
) -> tuple[Callable, dict[str, Any]]:
    from ..runtime import Engine

    place = pick_device(device)
    model: Any = load_model(name, weights, stages)
    engine = Engine(model, backend, precision, place, threads)
    details = {
        "model": model.name,
        "stages": getattr(model, "stages", None),
        "device": str(place),
        "engine": engine.explain(),
    }
    return frame_function(engine), details


def _work(jobs: list[Job], derain: Callable, max_pixels: int, quality: int) -> list[Result]:
    results = []
    with progress_bar() as bar:
        for job in bar.track(jobs, description="derain") if len(jobs) > 1 else jobs:
            results.append(_one(job, derain, max_pixels, quality))
    return results


def _one(job: Job, derain: "Callable[[np.ndarray], np.ndarray]", max_pixels: int, quality: int) -> Result:
    result = Result(str(job.source), str(job.target), "done")
    try:
        picture = read_picture(job.source, max_pixels)
        result.height, result.width = picture.rgb.shape[:2]
        start = time.perf_counter()
        try:
            dry = derain(picture.rgb)
        except (RuntimeError, MemoryError) as error:
            raise memory_error(error, picture.rgb) or error from error
        result.ms = round((time.perf_counter() - start) * 1e3, 1)
        write_picture(job.target, picture.with_rgb(dry), quality=quality)
        if job.compared:
            write_image(job.compared, side_by_side(picture.rgb, dry), quality=quality)
    except UnrainError as error:
        result.status, result.error = "failed", str(error)
        complain(str(error))
    return result


def side_by_side(before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
    """Before, a white line, after."""
    import numpy as np

    line = np.full((before.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([before, line, after], axis=1)


def _summary(results: list[Result], counts: dict[str, int]) -> str:
    if len(results) == 1 and counts["done"]:
        one = results[0]
        return f"{one.input} -> {one.output}  {one.width} x {one.height}  {one.ms:.0f} ms"
    parts = [f"{counts['done']} derained"]
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} skipped, already there (--overwrite redoes them)")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    times = sorted(result.ms for result in results if result.ms)
    return ", ".join(parts) + (f"; median {times[len(times) // 2]:.0f} ms" if times else "")
