"""`unrain bench`: one network by every way of running it here; two results compared; the roofline."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.console import complain, print_json, print_table, progress_bar
from ..engine.errors import UnrainError
from ..engine.files import write
from ..opening import DEFAULT_MODEL, pick_device

if TYPE_CHECKING:
    from torch import nn


def command(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model of `unrain models`, or a weights file.")
    ] = DEFAULT_MODEL,
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="The picture's height and width.")] = "256x256",
    stages: Annotated[
        int | None, typer.Option("--stages", "-T", min=1, max=100, help="How often a recurrent model runs.")
    ] = None,
    backends: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Only this backend (again for more of them).")
    ] = None,
    precisions: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Only this precision (again for more of them).")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=3, max=1000, help="Timed runs of each.")] = 9,
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads of each.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, cuda:1; auto takes a GPU if there is one.")
    ] = "auto",
    weights: Annotated[
        Path | None, typer.Option("-w", "--weights", help="Weights in place of the shipped ones.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON to this file, too.")] = None,
    roofline: Annotated[
        Path | None, typer.Option("--roofline", help="Draw the rows under the machine's limits: a .svg or .png.")
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Instead: what our own path spends on each layer, in bf16 or the precision."),
    ] = False,
    compared: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="BEFORE AFTER",
            help="Time nothing; say what became slower between two files, or folders of several runs each.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Time a model by every backend and precision, each compared with the plain fp32 network first.

    A row that is not faithful (60 dB in fp32, 50 in bf16 and fp16, 40 in int8) is called wrong and gets no time. Rounds
    take turns; what is shown is the median. `times` is against plain PyTorch in its usual layout and float32.
    """
    if compared is not None:
        raise typer.Exit(_compare(*compared, as_json))
    if roofline is not None and roofline.suffix.lower() not in (".svg", ".png"):
        raise UnrainError(f"--roofline writes .svg or .png, not {roofline}")
    height, width = _size(size)
    if layers:
        _layers(name, weights, height, width, stages, (precisions or ["bf16"])[0], rounds, threads, as_json)
        return
    answer = measure(name, weights, height, width, stages, backends, precisions, rounds, threads, device)
    if roofline is not None:
        from ..engine.benchmark.chart import save
        from ..engine.benchmark.roofline import roofline as drawn

        save(drawn(answer, f"Roofline, {name} {width} x {height}"), roofline)
    if output is not None:
        write(output, json.dumps(answer, indent=1) + "\n")
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    _warn_of_company(answer)
    if any(row["reason"] and row["reason"].startswith("wrong") for row in answer["rows"]):
        complain("rows marked wrong differ too much from the reference; their speed is not shown")


def measure(
    name: str,
    weights: Path | None,
    height: int,
    width: int,
    stages: int | None,
    backends: list[str] | None,
    precisions: list[str] | None,
    rounds: int,
    threads: int | None,
    device: str,
) -> dict[str, Any]:
    from ..engine.benchmark import backends as table
    from ..engine.benchmark import conditions, limits, results
    from ..engine.runtime import fidelity

    for backend in backends or [""]:
        for precision in precisions or [""]:
            if not table.known(backend, precision):
                raise UnrainError(
                    f"no row is called {f'{backend} {precision}'.strip()!r}; `unrain bench` lists them all"
                )
    chosen = pick_device(device)
    conditions.settle(threads)
    model, trained = _model(name, weights, stages)
    picture = fidelity.sample(height, width).to(chosen)

    def wanted(backend: str, precision: str) -> bool:
        return (not backends or backend in backends) and (not precisions or precision in precisions)

    with progress_bar() as bar:
        making = bar.add_task("prepare", total=None)
        found = table.rows(
            model, picture, threads, wanted, lambda row: bar.update(making, description=f"prepare {row}")
        )
        bar.update(making, visible=False)
        machine_limits = limits.measured(chosen)
        timing = bar.add_task("rounds", total=rounds)

        def between_rounds() -> None:
            nonlocal machine_limits
            machine_limits = machine_limits.or_better(limits.glimpse(chosen, machine_limits))
            bar.advance(timing)

        table.time_rows(found, picture, rounds, between_rounds)
    rows = table.report(found, model, picture, machine_limits, f"{name} {height}x{width}")
    return results.document(
        f"bench-{name}-{height}x{width}",
        str(chosen),
        machine_limits,
        rows,
        model=name,
        weights="trained" if trained else "random",
        stages=getattr(model, "stages", None),
        size=[height, width],
        layer_traffic=limits.layer_traffic(model, height, width),
    )


def _layers(
    name: str,
    weights: Path | None,
    height: int,
    width: int,
    stages: int | None,
    precision: str,
    rounds: int,
    threads: int | None,
    as_json: bool,
) -> None:
    import torch

    from ..engine.benchmark import conditions, limits
    from ..engine.benchmark.layers import Layer, layers
    from ..engine.runtime import fidelity

    conditions.settle(threads)
    found = layers(_model(name, weights, stages)[0], fidelity.sample(height, width), precision, rounds)
    if as_json:
        print_json([row._asdict() for row in found])
        return
    total = sum(row.milliseconds for row in found)
    operations = sum(row.operations for row in found)
    rows = [
        [
            row.op,
            row.module,
            f"{row.operations / 1e9:.2f}" if row.operations else "",
            f"{row.milliseconds:.2f}",
            f"{100 * row.milliseconds / total:.0f}%",
            f"{row.operations / row.milliseconds / 1e6:.0f}" if row.operations else "",
        ]
        for row in [*found, Layer("all", "", operations, total)]
    ]
    columns = ["operation", "from", " G operations", " ms", " share", " G/s"]
    print_table(columns, rows, f"{name}, {width} x {height}, {precision}")
    rate = limits.measured().matrix["fp32"]
    print(
        f"this machine multiplies fp32 matrices at {rate / 1e9:.0f} G operations/s; {torch.get_num_threads()} threads"
    )


def _model(name: str, weights: Path | None, stages: int | None) -> "tuple[nn.Module, bool]":
    """The network; with random weights where none are shipped, for they take as long."""
    import torch

    from ..engine.models import CATALOG, WEIGHTS, build, with_stages
    from ..opening import load_model

    if weights is not None or name not in CATALOG or (WEIGHTS / f"{name}.safetensors").is_file():
        return load_model(name, weights, stages), True
    torch.manual_seed(0)
    return with_stages(build(name).eval(), stages), False


def _compare(before: Path, after: Path, as_json: bool) -> int:
    """Prints what changed; 1 when something of ours became slower, wrong or is gone."""
    from ..engine.benchmark.compare import compare
    from ..engine.benchmark.results import read

    found = read(before), read(after)
    changes = compare(*found)
    if as_json:
        print_json([{**change._asdict(), "regression": change.regression} for change in changes])
    else:
        rows = [
            [
                change.verdict,
                change.case,
                change.contender,
                f"{change.before:.3f}",
                "" if change.after is None else f"{change.after:.3f}",
                "" if change.ratio is None else f"{change.ratio:.2f}",
                f"{change.drift:.2f}",
                f"{100 * change.margin:.0f}%",
            ]
            for change in changes
        ]
        columns = ["", "case", "contender", " ms before", " ms after", " ratio", " of rivals", " margin"]
        print_table(columns, rows, f"{after} against {before}")
    for path, one in zip((before, after), found, strict=True):
        _warn_of_company(one, f"{path}: ")
    regressed = sum(change.regression for change in changes)
    print(f"{regressed} of {len(changes)} rows regressed", file=sys.stderr)
    return 1 if regressed else 0


def _warn_of_company(found: dict[str, Any], where: str = "") -> None:
    from ..engine.benchmark.bystanders import warning

    facts = found["facts"]
    words = warning(facts.get("cores_taken"), facts.get("cores") or 1)
    if words:
        complain(where + words)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or min(int(match[1]), int(match[2])) < 8:
        raise UnrainError(f"--size must be HEIGHTxWIDTH, at least 8x8, such as 480x640; got {text!r}")
    return int(match[1]), int(match[2])


def _show(answer: dict[str, Any]) -> None:
    from ..engine.benchmark.results import percent

    facts, limits = answer["facts"], answer["limits"]
    rates = ", ".join(f"{rate / 1e9:.0f} G{name}" for name, rate in limits["operations_per_second"].items())
    stages = f", {answer['stages']} stages" if answer["stages"] else ""
    height, width = answer["size"]
    title = f"{answer['model']} ({answer['weights']} weights{stages}), {width} x {height}, {answer['device']}"
    rows = [
        [
            row["contender"],
            row["runs"] if row["backend"] == "auto" else "",
            "" if row["median_ms"] is None else f"{row['median_ms']:.1f}",
            "" if row["median_ms"] is None else f"{row['low_ms']:.1f} - {row['high_ms']:.1f}",
            "" if row["times_eager"] is None else f"{row['times_eager']:.2f}",
            _decibels(row),
            percent(row["limit_share"]),
            "" if row["ready_s"] is None else f"{row['ready_s']:.1f}",
            row["reason"] or "; ".join(row["notes"]),
        ]
        for row in answer["rows"]
    ]
    columns = ["way", "runs", " ms", " quartiles", " times", " dB", " of limit", " ready s", ""]
    print_table(columns, rows, title)
    print(
        f"{answer['rows'][0]['operations'] / 1e9:.1f} G operations; this machine copies "
        f"{limits['copy_bytes_per_second'] / 1e9:.1f} GB/s and multiplies matrices at {rates} operations/s; "
        f"{facts['threads']} threads"
    )


def _decibels(row: dict[str, Any]) -> str:
    if row["required_db"] is None:
        return "reference"
    if row["fidelity_db"] is not None:
        return f"{row['fidelity_db']:.1f}"
    return "" if row["reason"] else "same"
