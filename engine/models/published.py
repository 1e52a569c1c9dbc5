"""Published checkpoints of RecDerain (SRN, BRN) and PReNet (the same network as SRN), recognised by their keys.

Such a file is a pickled state dict, with or without the `module.` prefix of DataParallel. BRN's holds two residual
blocks of the rain branch that were declared and never used; they are dropped. The authors have one convolution per
gate; ours concatenates them, and puts the network's own hidden state last in their input.

Whether an SRN learned the residual or the direct mapping does not show in its keys, but in what it does: read the
wrong way, it spoils a clean picture (mean error 0.02 to 0.9 where the right way gives 0.0004 to 0.014 for the authors'
files). Without a name to go by, the way that keeps the picture better is taken.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..errors import UnrainError
from . import build, find

SUPPORTED = ("srn", "srn-direct", "srn-gru", "srn-x", "srn-plus", "brn")
STAGES = {"brn": 8}  # at which the published weights give the paper's numbers; 6 for the others
UNUSED = re.compile(r"res_conv[45]_r\.[02]\.(weight|bias)")


@dataclass(frozen=True)
class Layer:
    """One convolution of ours, the published ones it is made of, and the order in which their groups of inputs go."""

    ours: str
    theirs: tuple[str, ...]
    order: tuple[int, ...] = (0,)


def read(path: Path, name: str | None = None) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """The catalog's name of a published checkpoint, its weights under our keys, and what is to be said about it."""
    theirs = _read_tensors(path)
    found = recognise(theirs)
    if found is None:
        raise UnrainError(f"{path} is no checkpoint of SRN, PReNet or BRN that unrain knows; its keys are not theirs.")
    if name is not None and name != found and (found, name) != ("srn", "srn-direct"):
        find(name)
        mismatch = first_mismatch(theirs, name) if name in SUPPORTED else None
        where = f" (first mismatching key: {mismatch})" if mismatch else ""
        raise UnrainError(f"{path} holds weights of {found}, not of {name}{where}.")
    mismatch = first_mismatch(theirs, found)
    if mismatch:
        raise UnrainError(f"{path} looks like {found} but does not fit it: {mismatch}.")
    tensors, used = _translate(theirs, found)
    note = "recognised by its keys"
    if found == "srn":
        found, note = _mapping(tensors, name)
    card = {
        "stages": STAGES.get(found, 6),
        "source": path.name,
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "note": note,
        "unused": sorted(theirs.keys() - used),
    }
    return found, tensors, card


def recognise(theirs: Mapping[str, Tensor]) -> str | None:
    """The name of the network that a published state dict (without the prefix) belongs to, by its layers."""
    if "conv0.0.weight" not in theirs or "res_conv5.0.weight" not in theirs:
        return None
    if "conv0_r.0.weight" in theirs:
        return "brn"
    if "conv_z.0.weight" in theirs:
        return "srn-gru"
    if "res_conv18.0.weight" in theirs:
        return "srn-plus"
    return "srn-x" if theirs["conv0.0.weight"].shape[1:2] == (3,) else "srn"


def first_mismatch(theirs: Mapping[str, Tensor], name: str) -> str | None:
    """What is wrong with the first published key that does not fit the network `name`; None when all do."""
    with torch.device("meta"):
        ours = build(name).state_dict()
    expected = {}
    for layer in _layers(name):
        for kind in ("weight", "bias"):
            outputs, *rest = ours[f"{layer.ours}.{kind}"].shape
            expected.update({f"{stem}.{kind}": [outputs // len(layer.theirs), *rest] for stem in layer.theirs})
    for key, shape in expected.items():
        if key not in theirs:
            return f"{key} is missing"
        if list(theirs[key].shape) != shape:
            return f"{key} is {list(theirs[key].shape)} where {shape} is expected"
        if not theirs[key].is_floating_point() or theirs[key].layout != torch.strided:
            return f"{key} is not a plain floating-point tensor"
    extra = (key for key in theirs if key not in expected and not (name == "brn" and UNUSED.fullmatch(key)))
    return next((f"{key!r} is not a weight of this network" for key in extra), None)


def _mapping(tensors: Mapping[str, Tensor], name: str | None) -> tuple[str, str]:
    """`srn` or `srn-direct`: the one asked for, else the one that better keeps a clean picture; and why."""
    ramp = torch.linspace(0.1, 0.4, 48)
    clean = (ramp[:, None] + ramp).expand(1, 3, 48, 48)
    errors = {}
    for candidate in ("srn", "srn-direct"):
        with torch.device("meta"):
            model = build(candidate)
        model.load_state_dict(tensors, assign=True)
        with torch.inference_mode():
            errors[candidate] = (model(clean.to(tensors["branch.f_in.weight"].dtype)) - clean).abs().mean().item()
    kept = min(errors, key=errors.__getitem__)
    measured = ", ".join(f"{error:.2g} as {candidate}" for candidate, error in errors.items())
    reason = "asked for" if name else "which keeps a clean picture better"
    return (
        name or kept,
        f"taken as {name or kept}, {reason} (mean error {measured}; the keys do not tell the two apart)",
    )


def _layers(name: str) -> Iterator[Layer]:
    if name == "brn":
        yield from _branch("rain", "_r", blocks=3, order=(0, 2, 1))  # theirs: features, own state, the other's state
        yield from _branch("image", "", blocks=5, order=(0, 2, 1))
    else:
        cell = "gru" if name == "srn-gru" else "lstm"
        yield from _branch("branch", "", blocks=18 if name == "srn-plus" else 5, order=(0,), cell=cell)


def _branch(ours: str, suffix: str, blocks: int, order: tuple[int, ...], cell: str = "lstm") -> Iterator[Layer]:
    def gate(letter: str) -> str:
        return f"conv_{letter}{suffix}.0"

    yield Layer(f"{ours}.f_in", (f"conv0{suffix}.0",))
    if cell == "lstm":
        yield Layer(f"{ours}.f_recurrent.gates", tuple(gate(letter) for letter in "ifgo"), order)
    else:
        yield Layer(f"{ours}.f_recurrent.gates", (gate("z"), gate("b")), order)
        yield Layer(f"{ours}.f_recurrent.candidate", (gate("g"),), (1, 0))  # theirs: the reset state, features
    for number in range(blocks):
        yield Layer(f"{ours}.f_res.{number}.conv1", (f"res_conv{number + 1}{suffix}.0",))
        yield Layer(f"{ours}.f_res.{number}.conv2", (f"res_conv{number + 1}{suffix}.2",))
    yield Layer(f"{ours}.f_out", (f"conv{suffix}.0",))


def _translate(theirs: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], set[str]]:
    tensors, used = {}, set()
    for layer in _layers(name):
        weight = torch.cat([theirs[f"{stem}.weight"] for stem in layer.theirs])  # [outputs, inputs, 3, 3]
        groups = weight.chunk(len(layer.order), 1)
        tensors[f"{layer.ours}.weight"] = torch.cat([groups[index] for index in layer.order], 1)
        tensors[f"{layer.ours}.bias"] = torch.cat([theirs[f"{stem}.bias"] for stem in layer.theirs])
        used |= {f"{stem}.{kind}" for stem in layer.theirs for kind in ("weight", "bias")}
    return tensors, used


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth file, without the DataParallel prefix. Code in the pickle is refused, not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickle protocols; what is wrong is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
        wants = f"it wants to load {culprit[1]}" if culprit else "it does not hold tensors alone"
        raise UnrainError(f"{path} is refused: {wants}, and unpickling such a file could run any code.") from None
    except Exception as error:  # a damaged file makes the unpickler fail in any way it likes
        raise UnrainError(f"{path} is damaged or no PyTorch checkpoint ({type(error).__name__}).") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UnrainError(f"{path} is not a state dict: something in it is not a tensor.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}
