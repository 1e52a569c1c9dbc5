"""From a module to a list of nodes, by torch.export of the plain reference. Nothing is known of classes.

How stages and states are found: a module with `stages`, `initial_state(x)` and `stage(x, state) -> (picture, state)`
has stages; one with `initial_state(x)` and `step(x, state) -> (picture, state)` has a state from frame to frame; any
other is called. A state is a NamedTuple of tensors. Where states keep their shapes, one stage is recorded for all.

It is recorded at one size, so that sizes become fractions of the picture's, and of a size that needs no padding: what
the network pads to is seen by giving it another size, up to its first convolution.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from . import operations  # noqa: F401  # what they mean
from .graph import Mark, Node, Refused, Run, listed
from .translate import Translator

SIDES = 192, 320  # multiples of 64 and unlike any number of channels
PADDINGS = {"reflection_pad2d": 0, "index": 0, "replication_pad2d": 1, "constant_pad_nd": 2}


class Recording(NamedTuple):
    runs: tuple[Run, ...]  # from zero states; from given ones, where states keep their shapes
    multiple: int
    padding: int  # 0 reflected, 1 the edge repeated, 2 zeros
    state: tuple[str, ...]  # the state's fields


class _Called(nn.Module):
    """One of the module's methods as a forward, with states as plain tensors."""

    def __init__(self, module: nn.Module, call: Any) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.call(*tensors)


def recorded(module: nn.Module, channels: int = 3) -> Recording:
    """The runs of a network for pictures of so many channels, as it computes them."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        with torch.no_grad():
            like = next(module.parameters(), torch.empty(0))
            return _recorded(module, like.new_zeros(1, channels, *SIDES))
    finally:
        for each in training:
            each.training = True


def _recorded(module: Any, x: Tensor) -> Recording:
    advance = _advance(module)
    picture = Node("input", (), x.shape[1], 0, where="the picture")
    if advance is None:
        call = _single(module)
        run = _runs(picture, [_traced(module, call, (x,))])
        return Recording((run,), *_padding(module, lambda x: call(x)[0], x, run), ())
    stages = module.stages if hasattr(module, "stages") else 1
    before, after = _states(module, advance, x)
    kind, fields = type(before), tuple(before._fields)

    def stage(x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        image, state = advance(x, kind(*state))
        return (image, *state)

    def first_stage(x: Tensor) -> Tensor:
        return advance(x, module.initial_state(x))[0]

    if [each.shape for each in before] != [each.shape for each in after]:
        run = _growing(module, picture, x, advance, stages)
        return Recording((run,), *_padding(module, first_stage, x, run), ())
    begin = _traced(module, lambda x: tuple(module.initial_state(x)), (x,))
    states = [x.new_zeros(each.shape) for each in before]
    one = _traced(module, stage, (x, *states))
    first = _runs(picture, [one] * stages, begin)
    carry = _runs(picture, [one] * stages, None, [tuple(each.shape) for each in states])
    return Recording((first, carry), *_padding(module, first_stage, x, first), fields)


def _states(module: Any, advance: Any, x: Tensor) -> tuple[Any, Any]:
    """The states before and after a stage, of which only the shapes are real."""
    try:
        with _quiet(), FakeTensorMode(allow_non_fake_inputs=True) as fake:
            before = module.initial_state(fake.from_tensor(x))
            after = advance(fake.from_tensor(x), before)[1]
        if before._fields and all(isinstance(each, Tensor) for each in (*before, *after)):
            return before, after
    except Exception as error:
        raise _no_recording(module, error) from error
    raise Refused(f"{type(module).__name__} cannot be recorded: its state is no NamedTuple of tensors")


def _no_recording(module: nn.Module, error: Exception) -> Refused:
    said = [*str(error).strip().splitlines(), type(error).__name__][0]
    return Refused(f"{type(module).__name__} cannot be recorded: {said}")


def _advance(module: Any) -> Any:
    """The method that goes from a state to the next one."""
    if hasattr(module, "initial_state"):
        for name, needs in (("stage", "stages"), ("step", "initial_state")):
            if hasattr(module, name) and hasattr(module, needs):
                return getattr(module, name)
    return None


def _single(module: nn.Module) -> Any:
    def call(x: Tensor) -> tuple[Tensor]:
        y = module(x)
        if not isinstance(y, Tensor):
            raise Refused(f"{type(module).__name__} returns {type(y).__name__} where the program needs one picture")
        return (y,)

    return call


def _growing(module: Any, picture: Node, x: Tensor, advance: Any, stages: int) -> Run:
    """A network whose state grows from stage to stage: all stages in one recording, and no state to go on from."""

    def call(x: Tensor) -> tuple[Tensor, ...]:
        state, images = module.initial_state(x), []
        for _ in range(stages):
            image, state = advance(x, state)
            images.append(image)
        return tuple(images)

    translator = Translator(SIDES)
    images = translator(_traced(module, call, (x,)), (picture,))
    marks = [Mark(_picture(each, picture)) for each in images]
    return Run(picture, (), listed(translator.nodes, marks), tuple(marks))


def _runs(picture: Node, stages: Sequence[Any], begin: Any = None, ports: Sequence[tuple] | None = None) -> Run:
    translator = Translator(SIDES)
    states: Sequence[Node] = ()
    if begin is not None:
        states = translator(begin, (picture,))
    elif ports is not None:
        states = [
            Node("input", (), shape[1], (SIDES[0] // shape[2]).bit_length() - 1, where=f"state {number}")
            for number, shape in enumerate(ports)
        ]
    entering, marks = tuple(states) if begin is None else (), []
    for stage in stages:
        image, *states = translator(stage, (picture, *states))
        marks.append(Mark(_picture(image, picture), tuple(states)))
    return Run(picture, entering, listed(translator.nodes, marks), tuple(marks))


def _picture(image: Node, picture: Node) -> Node:
    if image.down != 0 and image.op != "raw":
        raise Refused(f"the network's result is no picture of the size of its input ({image.where or 'forward'})")
    return image


def _traced(module: nn.Module, call: Any, example: tuple[Tensor, ...]) -> Any:
    try:
        with _quiet():
            return torch.export.export(_Called(module, call).eval(), example, strict=False)
    except Refused:
        raise
    except Exception as error:
        raise _no_recording(module, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own report of what did not work: the refusal says it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    said, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = said


class _Found(Exception):
    pass


class _Watch(TorchDispatchMode):
    """Sees the padding before the first convolution, and stops there."""

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        self.sides = sides
        self.found: tuple[int, int] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "convolution":
            raise _Found
        y = func(*args, **(kwargs or {}))
        if name in PADDINGS and isinstance(y, Tensor) and y.dim() == 4:
            grown = y.shape[2] - self.sides[0], y.shape[3] - self.sides[1]
            if grown[0] == grown[1] and grown[0] & (grown[0] - 1) == 0 and grown[0] > 1:
                self.found = grown[0], PADDINGS[name]
        return y


def _padding(module: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor, run: Run) -> tuple[int, int]:
    """What the network pads to, and how: it is given pictures that are one larger than the multiples of 64.

    One that pads nothing must not take them where it halves anything: there its borders are of no program.
    """
    watch = _Watch(SIDES)
    larger = x.shape[1], SIDES[0] + 1, SIDES[1] + 1
    least = 1 << max([0, *(each.down for each in run.nodes)])
    try:
        with _quiet(), FakeTensorMode(allow_non_fake_inputs=True):
            try:
                with watch:
                    call(x.new_empty(1, *larger))
            except _Found:
                pass
            if watch.found is None and least > 1 and call(x.new_empty(1, *larger)).shape[1:] == larger:
                raise Refused(
                    f"{type(module).__name__} takes sizes that are no multiple of {least} without padding the picture"
                )
    except Refused:
        raise
    except Exception:  # it takes no such pictures: padded ones it will
        return least, 0
    multiple, padding = watch.found or (1, 0)
    return max(multiple, least), padding
