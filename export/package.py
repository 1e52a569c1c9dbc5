"""An AOTInductor package: the network compiled to machine code for C++ programs that have libtorch, but no Python.

It is made from the plain PyTorch network, which Inductor fuses itself: an operator registered from Python could not be
called from C++. A package takes one batch and one size, those of the camera, and keeps its buffers between calls.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..engine.errors import UnrainError
from ..engine.files import replacing, write
from ..engine.runtime.backends import sidecar
from . import metadata
from .fidelity import Fidelity, compare, reference
from .targets import Options, Outcome
from .verify import fitted

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

SIZE = (480, 640)
DEVICES = ("cpu", "cuda")


def to_package(model: nn.Module, output: Path, options: Options) -> Outcome:
    """One package and its sidecar; for the CPU, or for the GPU of this machine where `--target cuda` asks for it."""
    import torch

    from ..engine.models import with_stages

    device = options.target or "cpu"
    _check(options, device)
    size, batch = options.size or SIZE, options.batch or 1
    network = deepcopy(with_stages(model, options.stages)).to(device, torch.float32).eval().requires_grad_(False)
    image = torch.rand(batch, 3, *size, device=device)
    with torch.no_grad():
        program = torch.export.export(network, (image,))
    about = metadata.describe(
        model,
        target="package",
        library="aotinductor",
        version=torch.__version__,
        targets=[device],
        precision="fp32",
        stages=getattr(network, "stages", None),
        layout="float32 [batch, 3, height, width] in [0, 1]",
        size=list(size),
        batch=batch,
    )
    with replacing(output) as part, TemporaryDirectory(dir=part.parent, prefix=".") as folder:
        _compile(program, Path(folder) / output.name, about).replace(part)
        data = part.read_bytes()
        write(sidecar.sidecar_of(output), sidecar.complete(about, data))
    notes = [f"for {device}, libtorch {torch.__version__}, pictures of {size[0]}x{size[1]}, batch {batch}"]
    details = json.loads(sidecar.sidecar_of(output).read_text())
    return Outcome([output, sidecar.sidecar_of(output)], notes, details, verify=output)


def _compile(program: Any, path: Path, about: dict[str, Any]) -> Path:
    """`path` has the name that the package is to have: Inductor writes it into the archive."""
    import torch._inductor

    inside = {"aot_inductor.metadata": _for_programs(about)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, about PyTorch
        return Path(torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=inside))


def _for_programs(about: dict[str, Any]) -> dict[str, str]:
    """What a C++ program needs to know, for AOTIModelPackageLoader.get_metadata: no JSON to read there."""
    height, width = about["size"]
    version = about["version"].partition("+")[0]  # as TORCH_VERSION has it
    said = {"model": about["model"], "height": height, "width": width, "batch": about["batch"], "libtorch": version}
    return {f"unrain_{name}": str(value) for name, value in said.items()}


def verify_package(path: Path, model: nn.Module | None, pictures: Sequence[np.ndarray]) -> Fidelity:
    """A package run by this machine's libtorch, against `model` or the shipped weights of the network it names."""
    import torch

    description = sidecar.read(path)
    run = load(path)
    if model is None:
        from ..engine.models import load as load_model

        model = load_model(description["model"])
    metadata.require_same_weights(description, model, str(path))
    size, batch, device = description["size"], description["batch"], description["targets"][0]

    def once(picture: np.ndarray) -> np.ndarray:
        several = torch.from_numpy(picture).to(device).expand(batch, -1, -1, -1).contiguous()
        return run(several)[:1].float().cpu().numpy()

    fitting = [fitted(picture, size) for picture in pictures]
    return compare(once, reference(model, description.get("stages")), fitting, description["precision"])


def load(path: Path) -> Any:
    """The package as a function of one tensor; it is machine code, and loaded only if its sidecar vouches for it."""
    import torch
    import torch._inductor

    sidecar.read_engine(path, library="aotinductor", version=torch.__version__)
    return torch._inductor.aoti_load_package(str(path))


def _check(options: Options, device: str) -> None:
    import torch

    if device not in DEVICES:
        raise UnrainError(f"a package is for --target cpu or cuda, not for {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UnrainError("a package for cuda is made on a machine with an NVIDIA GPU, and there is none here")
    if options.precision != "fp32":
        raise UnrainError(f"a package computes in fp32, not in {options.precision}")
    if options.size is not None and min(options.size) < 8:
        raise UnrainError(f"size must be at least 8x8, got {options.size[0]}x{options.size[1]}")
