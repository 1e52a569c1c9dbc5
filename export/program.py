"""A program file (`.unrain`): the network as our own core runs it, in this engine and, without Python, in C.

Weights are kept as they were trained; whoever loads it packs them for the precision and the machine it runs on. One
file takes every size and batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import UnrainError
from ..engine.files import write
from . import metadata
from .fidelity import Fidelity, carried, carried_reference, compare, reference
from .pictures import clips
from .targets import Options, Outcome

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


def to_program(model: nn.Module, output: Path, options: Options) -> Outcome:
    """One file, with what the other targets say about themselves in its card."""
    from ..engine.models import with_stages
    from ..engine.program import record

    if options.precision != "fp32":
        raise UnrainError(f"a program is precise as it runs, not as it is written: leave out {options.precision}")
    network = with_stages(model, options.stages)
    program = record(network)
    stages = getattr(network, "stages", None)
    about = metadata.describe(model, target="program", precision="fp32", recorded_stages=stages)
    write(output, replace(program, card={**about, **program.card}).data)
    count = sum(len(run.instructions) for run in program.runs)
    return Outcome(
        [output], [f"{count} instructions, pictures of every size"], {**about, **program.card}, verify=output
    )


def verify_program(path: Path, model: nn.Module | None, pictures: Sequence[np.ndarray]) -> Fidelity:
    """A program run by this machine's core, against `model` or the shipped weights of the network it names.

    On pictures, or, where the network was made for video, on clips with its state running.
    """
    import torch

    from ..engine.models import is_for_video
    from ..engine.program.runner import ProgramRunner

    data = path.read_bytes()
    runner = ProgramRunner(data)  # which reads only what is whole
    description = metadata.from_text(json.dumps(runner.card), str(path))
    if model is None:
        from ..engine.models import load

        model = load(description["model"])
    metadata.require_same_weights(description, model, str(path))

    def run(picture: np.ndarray) -> np.ndarray:
        return runner.run(torch.from_numpy(picture)).numpy()

    if is_for_video(model):
        return compare(carried(runner), carried_reference(model), clips(pictures), "fp32")
    return compare(run, reference(model, description.get("recorded_stages")), pictures, "fp32")
