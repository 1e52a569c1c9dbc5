"""`unrain train`: train a network from pictures on this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.errors import UnrainError
from ..engine.images import make_folder
from ..engine.models import find, no_stages


def command(
    model: Annotated[str, typer.Argument(help="A name of `unrain models`.")],
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Clean pictures, (rainy, clean) pairs, or time-lapse folders.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of this run: log, state, weights.")],
    recipe: Annotated[str, typer.Option(help="'short' (hours on a processor), 'paper', or 'video' (wiper).")] = "short",
    kind: Annotated[str, typer.Option(help="What DATA holds: auto, clean, pairs or timelapse.")] = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the run (the recipe's own if left out).")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="Stop after so many minutes, resumed ones included; the video recipe's rate ends with them."
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches per step and process.")] = None,
    patch: Annotated[int | None, typer.Option(min=32, help="Side of a patch in pixels.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Learning rate.")] = None,
    rain: Annotated[
        str | None, typer.Option(help="Rain for clean pictures: 'physical', or 'wide', a third of it heavy.")
    ] = None,
    stages: Annotated[
        int | None, typer.Option("--stages", "-T", min=1, help="T of recurrent nets in training.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option("--init", help="Begin from these weights; a wiper from a smaller one's, too.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
    hold_out: Annotated[int, typer.Option(min=1, help="Pictures kept out of training to measure progress.")] = 20,
    measure_every: Annotated[int, typer.Option(min=1, help="Steps between measurements and saved states.")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare patches.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Processor threads; by default all.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    vgg: Annotated[Path | None, typer.Option(help="VGG19 weights for the recipes with a perceptual term.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded pictures (cache/ beside OUT if left out).")
    ] = None,
) -> None:
    """Train MODEL. Clean pictures get generated rain; the same command run twice gives the same weights.

    On several GPUs: torchrun --nproc-per-node 4 -m unrain.cli.main train ...
    """
    import torch

    from ..engine.training.distributed import join, leave
    from ..engine.training.setup import prepare
    from ..engine.training.trainer import Trainer

    if stages and find(model).stages is None:
        raise no_stages(model)
    for folder in (out, cache):
        if folder is not None:
            make_folder(folder)
    if threads:
        torch.set_num_threads(threads)
    changes: dict[str, Any] = {"steps": steps, "batch": batch, "patch": patch, "rate": rate, "rain": rain}
    if stages:
        changes["stages"] = ((0, stages),)
    group = join()
    try:
        run = prepare(
            model,
            data,
            out,
            recipe=recipe,
            kind=kind,
            changes={name: value for name, value in changes.items() if value is not None},
            cache=cache,
            hold_out=hold_out,
            resume=resume,
        )
        run.seed, run.minutes, run.measure_every, run.workers = seed, minutes, measure_every, workers
        run.precision, run.vgg, run.init, run.tell = precision, vgg, None if resume else init, _tell
        trainer = Trainer(run, group)
        if resume:
            trainer.resume(out / "last.pt")
        if trainer.step >= run.recipe.steps:
            raise UnrainError(f"{out} is finished at step {trainer.step}; --steps with a larger number goes on.")
        trainer.train()
    finally:
        leave()
    if group.first:
        typer.echo(f"{out / 'best.safetensors'}: {trainer.best:.2f} dB on held-out pictures, step {trainer.step}")


def _tell(row: dict[str, Any]) -> None:
    dry = f"  dry {row['dry']:.2f} dB" if "dry" in row else ""
    learning = f"step {row['step']:>7}  loss {row['loss']}  rate {row['rate']}"
    typer.echo(f"{learning}  held out {row['psnr']:.2f} dB{dry}  {row['minutes']} min", err=True)
