"""`unrain eval`: a model's numbers on a data set of rainy and clean pictures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..engine.console import print_json, print_table, progress_bar
from ..engine.errors import UnrainError
from ..engine.images import check_writable
from ..opening import load_model, pick_device

if TYPE_CHECKING:
    from torch import nn

    from ..engine.evaluation.pairs import Half, Pair
    from ..engine.evaluation.report import Report

UNPROCESSED = ("none", "input")


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="A name of `unrain models`, a weights file, 'input': the rainy pictures as they are, or 'all' weights "
            "that are shipped."
        ),
    ],
    dataset: Annotated[
        list[Path],
        typer.Argument(
            help="Folder with input/ and target/ (or the like) inside, a list of pairs, or a folder of photos. Several "
            "for 'all'."
        ),
    ],
    clean: Annotated[
        Path | None, typer.Option("--clean", help="The clean pictures, where DATASET has the rainy.")
    ] = None,
    rainy_half: Annotated[
        Literal["left", "right"], typer.Option("--rainy-half", help="Of pictures that hold both side by side.")
    ] = "right",
    weights: Annotated[Path | None, typer.Option("-w", "--weights", help="Weights instead of those shipped.")] = None,
    stages: Annotated[int | None, typer.Option("--stages", "-T", min=1, max=100, help="Of a recurrent model.")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            help="Of psnr_y, ssim_y, psnr_rgb, ssim_rgb (these by default), fsim, fsimc, vif, niqe; comma between.",
        ),
    ] = None,
    quantise: Annotated[
        Literal["truncate", "round"], typer.Option("--quantise", help="To 8 bits; the papers' code truncates.")
    ] = "truncate",
    video: Annotated[
        bool, typer.Option("--video", help="The pictures are frames of one clip: measure flicker too.")
    ] = False,
    carry: Annotated[
        bool, typer.Option("--carry/--no-carry", help="With --video: a network's own state goes from frame to frame.")
    ] = True,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many pairs.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads; by default all.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write every picture's numbers to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page with sliders over the worst.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure MODEL on the pairs of DATASET, beside the rainy pictures themselves.

    Real photos have no clean pictures: a folder of them is measured by NIQE, which needs none.
    """
    from ..engine.evaluation.evaluate import DEFAULT_METRICS, evaluate, evaluate_video

    chosen = None if metrics is None else tuple(name.strip() for name in metrics.split(",") if name.strip())
    if model == "all":
        from ..engine.evaluation.report import plain
        from .eval_all import METRICS, measure_all, name_sets, print_all

        if clean or weights or stages or csv or html or video:
            raise UnrainError("all takes no --clean, --weights, --stages, --csv, --html and --video")
        sets = {name: _set(path, None, rainy_half, chosen, METRICS, limit) for name, path in name_sets(dataset).items()}
        _use(threads)
        answer = measure_all(sets, pick_device(device), quantise)
        print_json(plain(answer)) if as_json else print_all(answer)
        return
    if len(dataset) > 1:
        raise UnrainError("one data set at a time; `unrain eval all` takes several")
    pairs, wanted = _set(dataset[0], clean, rainy_half, chosen, DEFAULT_METRICS, limit)
    network = None
    if model in UNPROCESSED:
        if weights or stages:
            raise UnrainError(f"{model} is the rainy picture itself; it takes no --weights and no --stages")
    else:
        network = _network(model, weights, stages, device, threads)
    for file in (csv, html):
        if file is not None:
            check_writable(file)
    measure = partial(evaluate_video, carry=carry) if video else evaluate
    with progress_bar() as bar:
        task = bar.add_task("evaluate", total=len(pairs))
        report = measure(
            network,
            pairs,
            wanted,
            quantise=quantise,
            progress=lambda done, total, row: bar.update(task, completed=done),
            examples=10 if html else 0,
            name=None if network is None else getattr(network, "name", model),
            data=str(dataset[0]),
        )
    if csv:
        report.write_csv(csv)
    if html:
        from ..engine.evaluation.page import write_page

        write_page(report, html)
    if as_json:
        print_json(report.to_dict())
        return
    print(
        f"{report.model} on {report.data}: {len(report.rows)} pictures, 8 bits by {quantise}, "
        f"median {report.seconds * 1e3:.0f} ms"
    )
    print_table(["mean of", " rainy", " output", " gain"], (_row(key, report) for key in report.metrics))
    for name, flicker in (report.flicker or {}).items():
        print(
            f"flicker, {name}: change error {flicker.change_error:.3f}, still change {flicker.still_change:.3f} levels"
        )


def _set(
    where: Path,
    clean: Path | None,
    rainy_half: "Half",
    chosen: Sequence[str] | None,
    usual: Sequence[str],
    limit: int | None,
) -> tuple[list["Pair"], Sequence[str]]:
    """The pictures of a data set, and what they are measured by: what was chosen, the usual, or niqe for photos."""
    from ..engine.evaluation.metrics import BLIND
    from ..engine.evaluation.pairs import find_pairs, find_photos, holds_photos

    photos = clean is None and holds_photos(where)
    pairs = find_photos(where) if photos else find_pairs(where, clean, rainy_half)
    return pairs[:limit], chosen if chosen is not None else tuple(BLIND) if photos else usual


def _row(key: str, report: "Report") -> list[str]:
    from .eval_all import title_of

    before, after = report.rainy[key], report.output[key]
    unit, digits = (" dB", 2) if key.startswith("psnr") else ("", 4)
    return [
        title_of(key),
        *(f"{value:.{digits}f}{unit}" for value in (before, after)),
        f"{after - before:+.{digits}f}{unit}",
    ]


def _network(model: str, weights: Path | None, stages: int | None, device: str, threads: int | None) -> "nn.Module":
    place = pick_device(device)
    _use(threads)
    return load_model(model, weights, stages).to(place)


def _use(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)
