"""LiteRT, for phones and boards: a `.tflite` file, and beside it a `.json` that describes it.

One input and one output, float32 [1, 3, height, width] of one size: RGB in [0, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.errors import UnrainError
from ..engine.files import write
from . import metadata
from .fidelity import Fidelity, Run, compare, reference
from .targets import Options, Outcome

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

SIZE = (480, 640)


def to_litert(model: nn.Module, output: Path, options: Options) -> Outcome:
    from ..engine.models import with_stages

    if options.precision != "fp32":
        raise UnrainError(f"LiteRT's files are made in fp32, not in {options.precision}")
    network, size = with_stages(model, options.stages), options.size or SIZE
    write(output, _converted(network, size))
    stages = getattr(network, "stages", None)
    about = metadata.describe(model, target="litert", precision="fp32", stages=stages, size=list(size))
    described = output.with_suffix(".json")
    write(described, metadata.to_text(about))
    return Outcome([output, described], [f"pictures of {size[0]} x {size[1]}"], about, verify=output)


def _converted(network: nn.Module, size: tuple[int, int]) -> bytes:
    import torch

    from ..engine.runtime.ncnn import Clamped

    try:
        import litert_torch
    except ImportError as error:
        raise UnrainError("LiteRT's files are made by litert-torch: pip install 'unrain[litert]'") from error
    whole = Clamped(deepcopy(network).to("cpu", torch.float32)).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return litert_torch.convert(whole, (torch.rand(1, 3, *size),)).model_content()
        except Exception as error:  # whatever the converter raises of an operation that it does not know
            raise UnrainError(f"litert-torch cannot convert it: {' '.join(str(error).split())[:200]}") from error


def verify_litert(path: Path, model: nn.Module | None, pictures: Sequence[np.ndarray]) -> Fidelity:
    """The file run by LiteRT, against `model` or the shipped weights of the network that it names."""
    from .verify import fitted

    about = metadata.beside(path)
    if model is None:
        from ..engine.models import load

        model = load(about["model"])
    metadata.require_same_weights(about, model, str(path))
    fitting = [fitted(picture, about["size"]) for picture in pictures]
    return compare(_loaded(path), reference(model, about.get("stages")), fitting, about["precision"])


def _loaded(path: Path) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UnrainError("this needs the package ai-edge-litert: pip install 'unrain[litert]'") from error
    try:
        net: Any = Interpreter(model_path=str(path))
        net.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UnrainError(f"LiteRT cannot load {path}: {str(error).splitlines()[0]}") from error
    [given], [found] = net.get_input_details(), net.get_output_details()

    def run(picture: np.ndarray) -> np.ndarray:
        net.set_tensor(given["index"], picture)
        net.invoke()
        return net.get_tensor(found["index"])

    return run
