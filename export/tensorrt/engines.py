"""Engines of TensorRT and TensorRT-RTX: built from our own ONNX graph, with a sidecar that says what they are.

`export_engine` builds one. `engine` gives the file that is there when it is the right one, and otherwise builds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...engine.errors import UnrainError
from ...engine.files import write
from ...engine.runtime.backends import sidecar
from ...engine.runtime.identity import model_hash
from ..adapter import ADAPTERS, TENSORRT, TENSORRT_RTX, Adapter, gpu_here
from ..fidelity import RULE, Fidelity, compare, reference
from ..metadata import require_same_weights
from ..onnx.export import build_onnx
from ..targets import Options, Outcome
from ..verify import fitted
from .build import Built, Profile, build

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import nn


class Engine(NamedTuple):
    path: Path
    description: dict[str, Any]  # what the sidecar says
    built: Built


def to_tensorrt(model: nn.Module, output: Path, options: Options) -> Outcome:
    return _outcome(model, export_engine(model, output, TENSORRT, options), options)


def to_tensorrt_rtx(model: nn.Module, output: Path, options: Options) -> Outcome:
    return _outcome(model, export_engine(model, output, TENSORRT_RTX, options), options)


def export_engine(model: nn.Module, output: Path, adapter: Adapter, options: Options) -> Engine:
    """Build the engine and write it with its sidecar."""
    # What may be wrong with the request is said before the graph is made, which takes longer.
    targets, profile = _checked(adapter, options)
    graph, exported = build_onnx(
        model,
        options.precision,
        options.stages,
        options.size,
        options.batch or 1,
        options.frames,
        options.state,
        options.pictures,
        options.others,
    )
    return write_engine(
        graph,
        {**exported.description, "network": model_hash(model)},
        output,
        adapter,
        targets,
        profile,
        options.workspace,
    )


def write_engine(
    graph: onnx.ModelProto,
    description: dict[str, Any],
    output: Path,
    adapter: Adapter,
    targets: Sequence[str],
    profile: Profile,
    workspace: int | None = None,
) -> Engine:
    """Build a graph of `build_onnx` into `output`."""
    single = {name for names in description["fp32_islands"].values() for name in names}
    built = build(graph, adapter, targets, profile, single if description["fp32_islands"] else None, workspace)
    about = {
        **description,
        "target": adapter.name,
        "library": adapter.module,
        "version": adapter.library().__version__,
        "targets": list(targets),
        "profile": built.shapes,
        "flags": {"strongly_typed": True, "tf32": False, "workspace": workspace},
        "onnx": hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
        "convolutions": {"half": len(built.half), "single": built.single},
        "layers": built.layers,
        "seconds": round(built.seconds, 3),
    }
    # The sidecar first: whatever happens in between, the two do not match and nothing is loaded.
    write(sidecar.sidecar_of(output), sidecar.complete(about, built.engine))
    write(output, built.engine)
    return Engine(output, sidecar.read(output), built)


def engine(model: nn.Module, path: Path, adapter: Adapter, options: Options, rebuild: bool = False) -> Path:
    """The engine in `path`, when it is what `options` ask for, by this version; else raise, or rebuild where asked."""
    targets, _ = _checked(adapter, options)
    expected = {
        "network": model_hash(model),
        "precision": options.precision,
        "stages": options.stages or getattr(model, "stages", None),
        "size": list(options.size) if options.size else None,
        "batch": options.batch or 1,
        "library": adapter.module,
        "version": adapter.library().__version__,
    }
    try:
        for target in targets:
            sidecar.read_engine(path, target=target, **expected)
    except UnrainError:
        if not rebuild:
            raise
        return export_engine(model, path, adapter, options).path
    return path


def verify_engine(path: Path, model: nn.Module | None, pictures: Sequence[np.ndarray]) -> Fidelity:
    """An engine run on this machine's GPU, against `model` or the shipped weights of the network it names."""
    description = sidecar.read(path)
    if description["library"] not in ADAPTERS or description["precision"] not in RULE:
        raise UnrainError(f"{path} was built by {description['library']!r} in {description['precision']!r}: not by us")
    adapter = ADAPTERS[description["library"]]
    here = gpu_here()
    sidecar.read_engine(path, target=here)
    if here is None:
        raise UnrainError(f"{path} is whole, and runs on {' and '.join(description['targets'])}; there is no GPU here")
    if not _plain(description):
        raise UnrainError(f"{path} takes frames or a state; verify the engine of the same network without them")
    library = adapter.library()
    sidecar.read_engine(path, version=library.__version__)
    if model is None:
        from ...engine.models import load

        model = load(description["model"])
    require_same_weights(description, model, str(path))
    import torch

    from ...engine.runtime.backends.tensorrt_runner import TensorRTRunner

    device = torch.device("cuda", 0)
    runner = TensorRTRunner(library, model, path, device)

    def run(picture: np.ndarray) -> np.ndarray:
        several = torch.from_numpy(picture).to(device).expand(description["batch"], -1, -1, -1)
        return runner.run(several)[:1].cpu().numpy()

    low, _, high = description["profile"].get("image", [[*(1, 3), *(description["size"] or (8, 8))]] * 3)
    sizes = [[max(low[i], min(picture.shape[i], high[i])) for i in (2, 3)] for picture in pictures]
    fitting = [fitted(picture, size) for picture, size in zip(pictures, sizes, strict=True)]
    return compare(run, reference(model, description.get("stages")), fitting, description["precision"])


def _checked(adapter: Adapter, options: Options) -> tuple[list[str], Profile]:
    adapter.library()
    if options.size is not None and (options.smallest or options.largest):
        raise UnrainError("an engine for one --size has no others to be fast at; leave out --min-size and --max-size")
    return adapter.targets(options.target), Profile.of(options.smallest, options.largest)


def _outcome(model: nn.Module, made: Engine, options: Options) -> Outcome:
    about, built = made.description, made.built
    total = len(built.half) + len(built.single)
    notes = [
        f"{about['library']} {about['version']} for {', '.join(about['targets'])}, built in {built.seconds:.1f} s",
        f"{len(built.half)} of {total} convolutions in half precision, as parsed",
    ]
    outcome = Outcome([made.path, sidecar.sidecar_of(made.path)], notes, about)
    here = gpu_here()
    if here in about["targets"] and _plain(about):
        outcome.verify = made.path
        notes += _into_cache(model, made, options)
    else:
        why = "it takes frames or a state" if here in about["targets"] else "this machine has no such GPU"
        notes.append(f"not run here, {why}; there, `unrain export --verify {made.path.name}` does it")
    return outcome


def _into_cache(model: nn.Module, made: Engine, options: Options) -> list[str]:
    """Give it to `Engine(backend="tensorrt")` on this machine, unless it is for a number of stages of its own."""
    import torch

    from ...engine.runtime.backends.tensorrt import engine_file

    if options.stages not in (None, getattr(model, "stages", None)) or (options.batch or 1) != 1:
        return []
    path = engine_file(made.description["library"], model, options.precision, torch.device("cuda", 0))
    write(sidecar.sidecar_of(path), sidecar.complete(made.description, made.built.engine))
    write(path, made.built.engine)
    return [f"Engine(backend={made.description['target']!r}) takes it from now on"]


def _plain(description: dict[str, Any]) -> bool:
    return not description.get("state") and str(description.get("layout", "")).startswith("float32")
