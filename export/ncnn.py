"""ncnn, for phones and boards: a `.param` file, beside it its weights in a `.bin`, and a `.json` that describes them.

Input blob `in0`, output blob `out0`: RGB planes in [0, 1], of one size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..engine.errors import UnrainError
from ..engine.files import write
from . import metadata
from .fidelity import Fidelity, compare, reference
from .targets import Options, Outcome

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

SIZE = (480, 640)


def to_ncnn(model: nn.Module, output: Path, options: Options) -> Outcome:
    from ..engine.models import with_stages
    from ..engine.runtime.ncnn import convert

    if options.precision not in ("fp32", "fp16"):
        raise UnrainError(f"ncnn's files are fp32 or fp16, not {options.precision}")
    network = with_stages(model, options.stages)
    size = options.size or SIZE
    places = [output, output.with_suffix(".bin"), output.with_suffix(".json")]
    with TemporaryDirectory(dir=output.parent, prefix=".ncnn-") as folder:
        made = convert(network, size, Path(folder), half=options.precision == "fp16")
        for path, place in zip(made, places[:2], strict=True):
            os.replace(path, place)
    stages = getattr(network, "stages", None)
    about = metadata.describe(model, target="ncnn", precision=options.precision, stages=stages, size=list(size))
    write(places[2], metadata.to_text(about))
    return Outcome(places, [f"pictures of {size[0]} x {size[1]}; input in0, output out0"], about, verify=output)


def verify_ncnn(path: Path, model: nn.Module | None, pictures: Sequence[np.ndarray]) -> Fidelity:
    """The files run by ncnn, against `model` or the shipped weights of the network that they name."""
    from ..engine.runtime.ncnn import Net
    from .verify import fitted

    about = metadata.beside(path)
    if model is None:
        from ..engine.models import load

        model = load(about["model"])
    metadata.require_same_weights(about, model, str(path))
    net = Net(path, path.with_suffix(".bin"), about["precision"])
    fitting = [fitted(picture, about["size"]) for picture in pictures]
    return compare(net.run, reference(model, about.get("stages")), fitting, about["precision"])
