"""Weights in files: safetensors with the network's name, configuration and stages inside.

The metadata key "unrain" holds JSON: {"format": 1, "model": name, "config": {...}, "stages": T or null, ...}, and
whatever else the writer wants to say (data set, scores, licence). Files are not trusted: keys, shapes and dtypes are
compared with the network before a number is read, and nothing large is allocated on the word of the file.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..errors import UnrainError
from . import build, find, published

FORMAT = 1
LARGEST = 1024  # no count in a configuration is near it; a file that says more wants to exhaust memory


def save(model: nn.Module, path: str | Path, *, half: bool = False, **card: Any) -> None:
    """Write the weights, with `card` as further metadata. `half` stores the parameters in fp16, for shipping.

    The file appears under its name only when it is complete.
    """
    path = Path(path)
    name = card.pop("model", getattr(model, "name", None))
    find(str(name))
    parameters = {key for key, _ in model.named_parameters()}
    tensors = {}
    for key, value in model.state_dict().items():
        value = value.detach().cpu()
        # Buffers (running statistics, memory items) keep their precision: they are few, and may not fit in fp16.
        value = value.half() if half and key in parameters else value.clone()
        tensors[key] = value.contiguous()
    _require_finite(tensors, f"{name} is not saved")
    stages = getattr(model, "stages", None)
    metadata = {"format": FORMAT, "model": name, "config": asdict(model.config), "stages": stages, **card}
    _write(path, to_bytes(tensors, {"unrain": json.dumps(metadata)}))


def load_file(path: str | Path, name: str | None = None) -> nn.Module:
    """The network in a .safetensors file or a published .pth checkpoint, in fp32 and eval mode.

    With `name`, it must be that network. The metadata is at hand as `.card`.
    """
    path = Path(path)
    if not path.is_file():
        state = "a directory" if path.is_dir() else "not there"
        raise UnrainError(f"{path} is {state}; give a .safetensors or .pth file.")
    if path.suffix != ".safetensors":
        found, tensors, card = published.read(path, name)
        return _filled(path, found, {}, tensors, card)
    try:
        with safe_open(path, "pt") as file:
            card = _card(path, file.metadata())
            kept = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118, it is no mapping
            shapes = {key: (tuple(part.get_shape()), _is_float(part.get_dtype())) for key, part in kept.items()}
            found = card["model"]
            expected = _expected(path, found, card["config"], most=len(kept))
            mismatch = first_mismatch(expected, shapes)
            if name is not None and name != found:
                mismatch = first_mismatch(_expected(path, name, {}), shapes)
                where = f" (first mismatching key: {mismatch})" if mismatch else ""
                raise UnrainError(f"{path} holds weights of {found}, not of {name}{where}.")
            if mismatch:
                raise UnrainError(f"{path} does not fit {found}: {mismatch}.")
            tensors = {key: file.get_tensor(key) for key in kept}
    except (SafetensorError, OSError) as error:
        raise UnrainError(f"{path} cannot be read as safetensors: {_one_line(error)}") from error
    return _filled(path, found, card["config"], tensors, card)


def read_card(path: str | Path) -> dict[str, Any]:
    """The metadata of a .safetensors file of this project, without its weights."""
    try:
        with safe_open(Path(path), "pt") as file:
            return _card(Path(path), file.metadata())
    except (SafetensorError, OSError) as error:
        raise UnrainError(f"{path} cannot be read as safetensors: {_one_line(error)}") from error


def first_mismatch(expected: Mapping[str, tuple], found: Mapping[str, tuple]) -> str | None:
    """What is wrong with the first key that differs in presence, shape or kind of number; None when all agree."""
    for key, (shape, is_float) in expected.items():
        if key not in found:
            return f"{key} is missing"
        if found[key][0] != shape:
            return f"{key} is {list(found[key][0])} where {list(shape)} is expected"
        if found[key][1] != is_float:
            return f"{key} holds {'whole' if is_float else 'floating-point'} numbers"
    extra = next((key for key in found if key not in expected), None)
    return None if extra is None else f"{extra!r} is not a weight of this network"


def _expected(path: Path, name: str, config: Mapping[str, Any], most: int | None = None) -> dict[str, tuple]:
    """Keys, shapes and kinds of the network, which is built without memory for its weights.

    With `most`, building ends once there are far more weights than that: layers without number take memory too.
    """
    try:
        with torch.device("meta"), nullcontext() if most is None else _at_most(most, path, name):
            state = build(name, **config).state_dict()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnrainError(f"{path}: its configuration builds no {name}: {_one_line(error)}") from error
    return {key: (tuple(value.shape), value.is_floating_point()) for key, value in state.items()}


@contextmanager
def _at_most(count: int, path: Path, name: str) -> Iterator[None]:
    """Ends what this thread builds once it has far more weights than the file."""
    limit, mine, made = 2 * count + 16, threading.get_ident(), 0  # some are made anew while a network is built

    def one_more(*_: Any) -> None:
        nonlocal made
        made += threading.get_ident() == mine
        if made > limit:
            raise UnrainError(f"{path} does not fit {name}: its configuration asks for more than its {count} weights.")

    hook = register_module_parameter_registration_hook(one_more)
    try:
        yield
    finally:
        hook.remove()


def _card(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The checked metadata: known format and model, a configuration of plausible size."""
    try:
        card = json.loads((metadata or {})["unrain"])
        version, name, config, stages = (card[key] for key in ("format", "model", "config", "stages"))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UnrainError(f"{path} does not say which network it belongs to; it was not written by unrain.") from None
    if version != FORMAT:
        raise UnrainError(f"{path} has format {version}, this version reads {FORMAT}; update unrain.")
    find(str(name))
    if not isinstance(config, dict):
        raise UnrainError(f"{path}: its configuration is not a set of options.")
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    for key, value in [*config.items(), ("stages", stages)]:
        for number in (*value, len(value)) if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) <= LARGEST:
                raise UnrainError(f"{path}: its configuration says {key!r} = {number}, which is not plausible.")
    if stages is not None and (not isinstance(stages, int) or stages < 1):
        raise UnrainError(f"{path}: its configuration says stages = {stages!r}, which is not a number of stages.")
    return {**card, "config": config}


def _filled(path: Path, name: str, config: Mapping[str, Any], tensors: dict[str, Tensor], card: dict) -> nn.Module:
    _require_finite(tensors, f"{path} is not loaded")
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten: leave the caller's numbers alone
        model = build(name, **config).float()
    model.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    )
    if card["stages"] is not None and hasattr(model, "stages"):
        model.stages = card["stages"]
    model.card = card
    return model.eval()


def _require_finite(tensors: Mapping[str, Tensor], consequence: str) -> None:
    for key, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UnrainError(f"{key} holds NaN or infinite numbers; {consequence}.")


def _is_float(dtype: str) -> bool:
    return dtype in ("F64", "F32", "F16", "BF16")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UnrainError(f"{path} cannot be written: {error.strerror}.") from error
