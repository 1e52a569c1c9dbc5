"""What the backends that run an ONNX graph share: the whole network in one call, or stage by stage with its state."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..graph import network_graph, repeats_one_stage, stage_graph
from ..identity import model_hash
from . import Runner, Step, eager

if TYPE_CHECKING:
    import onnx

_KEPT = 2  # graphs: the same one serves several backends and precisions in a trial, and takes seconds to translate
_graphs: OrderedDict[tuple[str, str], onnx.ModelProto] = OrderedDict()
_translating = threading.Lock()  # PyTorch exports one network at a time

Session = Callable[[dict[str, Tensor]], list[Tensor]]  # named inputs to the outputs, in the graph's order


def translated(translate: Callable[[nn.Module], onnx.ModelProto], model: nn.Module) -> onnx.ModelProto:
    """The graph, the last few of which are kept. Nobody may change it."""
    key = (translate.__name__, model_hash(model))
    with _translating:
        if key not in _graphs:
            _graphs[key] = translate(model)
            while len(_graphs) > _KEPT:
                _graphs.popitem(last=False)
        return _graphs[key]


class GraphRunner(Runner):
    """`open_session` turns a graph into something to call; the graph of one stage is only made when it is asked for.

    A network whose stages differ from one another has no such graph: its steps run in plain PyTorch.
    """

    def __init__(self, model: nn.Module, open_session: Callable[[onnx.ModelProto], Session]) -> None:
        self.model: Any = model
        self.open_session = open_session
        self._network = open_session(translated(network_graph, model))
        self._stage: Session | None = None
        self._plain: Runner | None = None

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        return self._network({"image": x.contiguous()})[0]

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Step]:
        stages = getattr(self.model, "stages", None)
        if stages is None:
            yield Step(self.run(x), None)
            return
        if not repeats_one_stage(self.model):
            self._plain = self._plain or eager.make(self.model, "fp32", x.device, None)
            yield from self._plain.steps(x, state, image)
            return
        if self._stage is None:
            self._stage = self.open_session(translated(stage_graph, self.model))
        with torch.inference_mode():
            x = x.contiguous()
            state = self.model.initial_state(x) if state is None else state
            if image is not None:
                state = state._replace(image=image)
        for _ in range(stages):
            with torch.inference_mode():
                fields = {f"{name}_in": value.contiguous() for name, value in state._asdict().items()}
                state = type(state)(*self._stage({"image": x, **fields}))
            yield Step(state.image, state)
