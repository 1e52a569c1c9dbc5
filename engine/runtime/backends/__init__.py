"""The ways of running a network, one file each.

How a backend plugs in
----------------------
Backend B is the module `engine/runtime/backends/B.py` (dashes as underscores), imported on first use. It provides

    PRECISIONS: tuple[str, ...]
        What it can compute in, of "fp32", "bf16", "fp16", "int8".
    available(device) -> str | None
        Why this machine cannot run it at all, or None. Must not fail, whatever is missing.
    can_run(model, precision, device) -> str | None
        Why it cannot run this network like that, or None.
    make(model, precision, device, threads) -> Runner
        May be slow: it prepares weights, compiles, builds. The network is left as it was.
    build_seconds(model) -> float
        About how long that and a first run take on a small machine; a trial does not begin what would outlast it.
    OUTDONE_BY: dict[str, str]
        Backends that leave it nothing to gain where they run in the same precision, and why: a trial leaves it out.

A Runner takes what the network takes, [B,3,H,W] in [0,1], float32 on its device, and gives float32 back, not clamped.
What it returns may be a static buffer that the next call overwrites: whoever keeps it copies it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ...errors import UnrainError

BACKENDS = ("eager", "fused", "compile", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


class Step(NamedTuple):
    """What one stage of a recurrent network leaves."""

    image: Tensor  # [B,3,H,W] float32, the picture of this stage
    state: Any  # for the `state` of a later call on the same Runner; opaque to the caller


class Runner(ABC):
    """One network, at one precision, ready to run."""

    # Whether calls may overlap, in any number of threads. Where not, an Engine makes them wait for one another.
    concurrent = False

    @abstractmethod
    def run(self, x: Tensor) -> Tensor:
        """The whole network on one batch, all stages of it where it is recurrent."""

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        """One Step per stage, computed when it is asked for: stop asking, and the rest is never computed.

        state   goes on from an earlier Step of this Runner (of the frame before, say): hidden states and image
        image   starts from this picture in place of the rainy one, with zero hidden states

        A network without stages is one step. The generator may be dropped at any point.
        """
        yield Step(self.run(x), None)


@runtime_checkable
class Planned(Protocol):
    """A Runner that knows what it takes: it runs a program."""

    reach: int | None  # how many pixels away a pixel may change another one; None: the whole picture
    summary: str  # what was fused, for people

    def bytes(self, height: int, width: int) -> int:
        """What one picture of that size takes at the peak of a run, beside the weights and the picture."""
        ...


def backend(name: str) -> ModuleType:
    """The module of that backend."""
    if name not in BACKENDS:
        raise UnrainError(f"backend must be auto, {', '.join(BACKENDS)}; got {name!r}")
    return import_module(f".{name.replace('-', '_')}", __name__)
