"""Our own path: packed weights, static buffers, fused kernels. See `engine/runtime/fused`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import nn

from ....kernels.conv3x3 import packed as conv3x3
from ...models.mlmcn import MLMCN
from ...models.mspfn import LAYOUTS, MSPFN
from ...models.srn_brn import BRN, SRN
from ...models.stagewise import Stagewise
from ...models.timelapse import Timelapse
from .. import fidelity
from . import Runner

PRECISIONS = ("fp32", "bf16", "fp16")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Products of bfloat16 are a third faster than bfloat16 maps alone; they are taken where they do not cost the precision.
_CHECKED = 96  # pixels a side
_MARGIN = 3.0  # dB beyond what the precision has to keep


def available(device: torch.device) -> str | None:
    if device.type == "cpu":
        from ..fused.convolution import available as convolutions

        return convolutions()
    return None if device.type == "cuda" else f"it runs on a CPU or on CUDA, not on {device.type}"


def can_run(model: nn.Module, precision: str, device: torch.device) -> str | None:
    if device.type == "cuda":
        return _on_a_gpu(model, precision)
    if not isinstance(model, SRN | BRN):
        reason = conv3x3.available() or _unknown_form(model)
        if reason is not None:
            return reason
    if precision not in ("fp32", "bf16"):
        return f"on a CPU it computes in fp32 or bf16, not in {precision}"
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bf16 arithmetic"
    return None


def _unknown_form(model: nn.Module) -> str | None:
    """Why a network that is neither SRN nor BRN, which run in any form, cannot run in its own; or None."""
    if isinstance(model, MSPFN):
        return f"it does not run the layout {model.config.layout!r}" if LAYOUTS[model.config.layout].lean else None
    if isinstance(model, Stagewise):
        if model.stages > len(model.outer) + 1:
            return f"this network has {len(model.outer) + 1} stages, {model.stages} were asked for"
        return conv3x3.can_run([model.config.channels] * (model.config.dilated + 1))
    return None if isinstance(model, MLMCN | Timelapse) else f"it does not run {type(model).__name__} networks"


def _on_a_gpu(model: nn.Module, precision: str) -> str | None:
    if not isinstance(model, SRN | BRN):
        return f"on a GPU it runs SRN and BRN networks, not {type(model).__name__}"
    if model.config.cell != "lstm":
        return f"on a GPU it runs LSTM cells, not {model.config.cell.upper()}"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bf16 arithmetic"
    return None if precision in PRECISIONS else f"it computes in {', '.join(PRECISIONS)}, not in {precision}"


def build_seconds(model: nn.Module) -> float:
    return 1.0


def make(model: nn.Module, precision: str, device: torch.device, threads: int | None) -> Runner:
    dtype = _DTYPES[precision]
    if device.type == "cuda":
        from ..fused.srn_brn_gpu import RecordedRecurrence

        return RecordedRecurrence(model, dtype, device)
    network = _network(model)
    if dtype == torch.bfloat16 and conv3x3.multiplies_bf16():
        picture = fidelity.sample(_CHECKED, _CHECKED)
        exact, quick = network(model, dtype, products=torch.float32), network(model, dtype, products=dtype)
        decibels = fidelity.decibels(quick.run(picture), exact.run(picture))
        return quick if decibels >= fidelity.LIMITS["bf16"] + _MARGIN else exact
    return network(model, dtype, products=torch.float32)


def _network(model: nn.Module) -> Callable[..., Runner]:
    """The class of its fused form on a CPU."""
    form = type(model).__name__
    file = {"SRN": "srn_brn", "BRN": "srn_brn"}.get(form, form.lower())
    return getattr(import_module(f"...fused.{file}_cpu", __name__), f"Fused{form}")
