"""What the backends that run an ONNX graph share: a network in one call, or with its state by stages or by frames."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...models import is_for_video, repeats_one_stage
from ..identity import model_hash
from . import Runner, Step, eager
from .graph import carried_graph, network_graph, stage_graph

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
    """`open_session` turns a graph into something to call; the graph with the state is only made when it is asked for.

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
            yield self._frame(x, state) if is_for_video(self.model) else Step(self.run(x), None)
            return
        if not repeats_one_stage(self.model):
            self._plain = self._plain or eager.make(self.model, "fp32", x.device, None)
            yield from self._plain.steps(x, state, image)
            return
        run_stage = self._with_state(stage_graph)
        with torch.inference_mode():
            x = x.contiguous()
            state = self.model.initial_state(x) if state is None else state
            if image is not None:
                state = state._replace(image=image)
        for _ in range(stages):
            with torch.inference_mode():
                state = type(state)(*run_stage({"image": x, **_ports(state)}))
            yield Step(state.image, state)

    @torch.inference_mode()
    def _frame(self, x: Tensor, state: Any) -> Step:
        state = self.model.initial_state(x) if state is None else state
        picture, *after = self._with_state(carried_graph)({"image": x.contiguous(), **_ports(state)})
        return Step(picture, type(state)(*after))

    def _with_state(self, translate: Callable[[nn.Module], onnx.ModelProto]) -> Session:
        if self._stage is None:
            self._stage = self.open_session(translated(translate, self.model))
        return self._stage


def _ports(state: Any) -> dict[str, Tensor]:
    return {f"{name}_in": value.contiguous() for name, value in state._asdict().items()}
