"""`unrain export`: a network for where no Python is, checked before it leaves."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.console import complain, print_json
from ..engine.errors import UnrainError
from ..engine.images import check_writable, make_folder
from ..opening import asked_for, load_model

if TYPE_CHECKING:
    from ..export.fidelity import Fidelity


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model of `unrain models`, or a weights file.")
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="onnx, int8, server, tensorrt, tensorrt-rtx, program, package, ncnn, litert, kernels or hub-kernels.",
        ),
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file to write, .onnx or what else --to makes; or a folder."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("-w", "--weights", help="Weights in place of the shipped ones.")
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, fp16 or int8; auto is what suits the target.")
    ] = "auto",
    stages: Annotated[
        int | None, typer.Option("--stages", "-T", min=1, max=100, help="How often a recurrent model runs.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HxW", help="The only size it takes; any when left out (package, ncnn, litert: 480x640)."
        ),
    ] = None,
    smallest: Annotated[
        str | None,
        typer.Option("--min-size", metavar="HxW", help="The smallest size of an engine, 64x64 when left out."),
    ] = None,
    largest: Annotated[
        str | None,
        typer.Option("--max-size", metavar="HxW", help="The largest size of an engine, 1088x1920 when left out."),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="The only batch size it takes.")] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Take and give 8-bit frames [B, H, W, 3].")] = False,
    state: Annotated[bool, typer.Option("--state", help="The recurrent state as inputs and outputs.")] = False,
    others: Annotated[
        str, typer.Option("--others", help="What an int8 graph computes all else in: fp16 (TensorRT) or fp32 (CPU).")
    ] = "fp16",
    opset: Annotated[
        int, typer.Option("--opset", min=17, max=20, help="The ONNX opset, for tools that read no newer one.")
    ] = 20,
    repository_name: Annotated[str | None, typer.Option("--name", help="The model's name in the server.")] = None,
    largest_batch: Annotated[
        int, typer.Option("--largest-batch", min=1, help="How many requests the server may join.")
    ] = 8,
    arch: Annotated[str, typer.Option("--arch", help="GPUs to compile kernels for, such as sm_87,sm_90,sm_110.")] = "",
    target: Annotated[
        str | None,
        typer.Option("--target", help="The GPUs of an engine, such as SM86,SM89,SM120; of a package cpu or cuda."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option("--workspace", metavar="MIB", min=1, help="GPU memory an engine may use.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder of real pictures; rain on bundled ones when left out.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Verify this exported file, and export nothing.")
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not verify what was exported.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Export a model, then run the exported file on real pictures and compare it with the fp32 network.

    What is below 60 dB in fp32, 50 dB in fp16 or 40 dB in int8 on any picture, or gives a value that is no number, is
    put aside as FILE.rejected, and the exit code is 1. An engine for a GPU that is not here is verified there, by
    `unrain export --verify FILE`; kernels are no network, and are not.
    """
    from ..engine.runtime.calibration import batches, pictures_in
    from ..export.pictures import bundled
    from ..export.targets import Options, export, named, settle, staging
    from ..export.targets import target as find_target
    from ..export.verify import verify as verify_file

    chosen = find_target(to)
    pictures = bundled() if images is None else pictures_in(images)
    if verify is not None:
        # A weights file says itself which network it is, and so does the exported one.
        model = load_model(*asked_for(name, weights)) if name or weights else None
        found = verify_file(verify, model, batches(pictures))
        _report({"file": str(verify), "verified": _as_json(found)}, [str(found)], as_json)
        raise typer.Exit(0 if found.passed else 1)
    if output is None:
        raise UnrainError(f"say where to write: -o FILE{chosen.suffix}" if chosen.suffix else "say where: -o FOLDER")
    output = named(output, to)
    options = Options(
        precision=chosen.precision if precision == "auto" else precision,
        stages=stages,
        size=_size(size, "--size"),
        smallest=_size(smallest, "--min-size"),
        largest=_size(largest, "--max-size"),
        batch=batch,
        frames=frames,
        state=state,
        others=others,
        opset=opset,
        name=repository_name,
        largest_batch=largest_batch,
        arch=tuple(part for part in arch.split(",") if part),
        target=target,
        workspace=workspace * 2**20 if workspace else None,
        pictures=pictures,
    )
    model = load_model(*asked_for(name, weights)) if to not in ("kernels", "hub-kernels") else None
    if chosen.suffix:
        check_writable(output)
    else:
        make_folder(output)
    fidelity = None
    with staging(output, to) as (folder, place):
        outcome = export(model, to, place, options)
        if not unchecked and outcome.verify is not None:
            fidelity = verify_file(outcome.verify, model, batches(pictures))
        passed = fidelity is None or fidelity.passed
        files = settle(outcome, folder, output.parent if chosen.suffix else output, passed)
    notes = outcome.notes
    if options.precision == "int8" and images is None:
        notes = [*notes, "calibrated on the bundled pictures; pictures of your own camera (--images) are better"]
    answer = {"files": [str(path) for path in files], "details": outcome.details, "notes": notes}
    lines = [*(f"{path}, {path.stat().st_size:,} bytes" for path in files), *notes]
    if fidelity is not None:
        answer["verified"] = _as_json(fidelity)
        lines.append(str(fidelity))
    _report(answer, lines, as_json)
    if not passed:
        complain(f"it does not compute the same; put aside as {', '.join(map(str, files))}")
        raise typer.Exit(1)


def _size(text: str | None, option: str) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match:
        raise UnrainError(f"{option} must be HEIGHTxWIDTH, such as 480x640; got {text!r}")
    return int(match[1]), int(match[2])


def _as_json(fidelity: "Fidelity") -> dict[str, Any]:
    decibels = fidelity.decibels if math.isfinite(fidelity.decibels) else None
    return {**fidelity._asdict(), "decibels": decibels, "required": fidelity.required, "passed": fidelity.passed}


def _report(answer: dict[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for line in lines:
        print(line)
