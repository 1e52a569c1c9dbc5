"""`unrain convert`: a published checkpoint becomes a weights file of this project."""

from pathlib import Path
from typing import Annotated

import typer

from ..engine.console import print_json


def command(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A published checkpoint (.pth) of SRN, PReNet or BRN.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    name: Annotated[
        str | None, typer.Option("-n", "--name", help="Which network it is; recognised by its keys when left out.")
    ] = None,
    stages: Annotated[int | None, typer.Option("--stages", "-T", min=1, help="Stages to record in the file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Convert a published checkpoint to safetensors, with the network's name and configuration inside.

    Nothing in the file is run: a pickle that holds code is refused.
    """
    from ..engine.errors import UnrainError
    from ..engine.images import make_folder
    from ..engine.models.convert import convert

    if output.suffix != ".safetensors":
        raise UnrainError(f"{output} must end in .safetensors")
    make_folder(output.parent)
    answer = convert(source, output, name, stages)
    if as_json:
        print_json(answer)
        return
    print(f"{source} -> {output}: {answer['model']}, {answer['parameters']:,} parameters, {answer['stages']} stages")
    print(f"  {answer['note']}")
    if answer["unused"]:
        print(f"  left out, as nothing uses them: {', '.join(answer['unused'])}")
