"""Writes a trained network as it is shipped: fp16, with where it comes from in the file.

python -m unrain.engine.training.ship runs/srn/last.safetensors --to engine/weights --stages 4
"""

from pathlib import Path
from typing import Annotated

import typer

from ..models.checkpoint import load_file, save

LICENCE = "Apache-2.0"
DATA = "300 freely licensed photographs with generated rain; no picture of BSDS, Rain100 or Rain12"


def main(
    weights: Annotated[Path, typer.Argument(help="last.safetensors or best.safetensors of a run.")],
    to: Annotated[Path, typer.Option(help="Folder; the file is named after the network.")],
    stages: Annotated[int | None, typer.Option(min=1, help="T to record for a recurrent network.")] = None,
) -> None:
    model = load_file(weights)
    if stages is not None:
        model.stages = stages
    kept = {key: model.card[key] for key in ("step", "held_out_psnr", "recipe") if key in model.card}
    path = to / f"{model.name}.safetensors"
    save(model, path, half=True, licence=LICENCE, data=DATA, **kept)
    typer.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    typer.run(main)
