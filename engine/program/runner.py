"""Runs a program by the compiled core: a context for each call in flight, and the states of stages as tensors."""

from __future__ import annotations

import json
import threading
import weakref
from collections import namedtuple
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...kernels import native
from ...kernels.compiled import Context, Prepared
from ...kernels.registry import thread_count
from ..errors import UnrainError

available = native.available  # why the core cannot run here, or None


class Stage(NamedTuple):
    """What a stage leaves: its picture, and the state that a later call goes on from, if the network has one."""

    picture: Tensor
    state: Any


class ProgramRunner:
    """A program at one precision. Any number of threads may call it.

    A state's tensors lie where the core left them: the next stage of the same call writes over them. A call of its own
    leaves them alone, so that a state may be kept from one frame to the next.
    """

    def __init__(self, data: bytes, maps: str = "float32", products: str = "float32", tier: str = "") -> None:
        core: Any = native.load()
        if isinstance(core, str):
            raise UnrainError(f"programs run in the compiled part: {core}")
        try:
            self.program = core.program(data)
            self.prepared = self.program.prepared(_code(maps), _code(products), tier or native.tier)
            self.card: dict[str, Any] = json.loads(self.program.card)
            names = [str(name) for name in self.card.get("state", ())]
            self.State: Any = namedtuple("State", names) if names else None  # noqa: PYI024: the names are the file's
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise UnrainError(" ".join(str(error).split())) from None
        if self.State is not None and len(names) != self.program.ports:
            raise UnrainError("program file: its card names other states than it has")
        self._contexts = _Contexts(self.prepared)

    @property
    def stages(self) -> int:
        return self.program.marks[0]

    def bytes(self, height: int, width: int) -> int:
        """What a call on one picture of this size takes, beside the weights and the picture."""
        return self.prepared.context_bytes(1, height, width, thread_count())

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the last stage's picture, float32, in a new tensor."""
        x, picture = self._ends(x)
        if x.shape[0] > 0:
            with self._contexts.one(x) as context:
                context.start(0, x)
                context.advance(self.stages, picture)
        return picture

    def steps(self, x: Tensor, state: Any = None, image: Tensor | None = None) -> Iterator[Stage]:
        """A Stage for every stage, computed when it is asked for: from a state, or from zero and perhaps a picture."""
        # Inference mode is entered anew around each stage: a generator must not leave it on in its caller.
        with torch.inference_mode():
            x, _ = self._ends(x)
            states = self._states(x, state, image)
        run = 0 if states is None else 1
        with self._contexts.one(x, states or ()) as context:
            with torch.inference_mode():
                if states is not None:
                    context.fill(states)
                context.start(run, x)
            for mark in range(1, self.program.marks[run] + 1):
                with torch.inference_mode():
                    picture = self._ends(x)[1]
                    context.advance(mark, picture)
                    left = self._left(context, run, mark)
                yield Stage(picture, left)

    @torch.inference_mode()
    def times(self, x: Tensor, state: Any = None) -> list[int]:
        """Nanoseconds: to take the picture in, for each instruction up to the last mark, to give the picture out."""
        x, picture = self._ends(x)
        states = self._states(x, state, None)
        run = 0 if states is None else 1
        mark = self.program.marks[run]
        with self._contexts.one(x, states or ()) as context:
            if states is not None:
                context.fill(states)
            began = perf_counter_ns()
            context.start(run, x)
            stamps = context.advance_timed(mark)
            context.advance(mark, picture)
            ended = perf_counter_ns()
        return [end - start for start, end in pairwise([began, *stamps, ended])]

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The picture as the core reads it, and room for the result."""
        if x.dim() != 4 or x.shape[1] != self.program.in_channels:
            raise UnrainError(f"expected pictures [B, {self.program.in_channels}, H, W], got {list(x.shape)}")
        x = x.to(torch.float32).contiguous()
        return x, x.new_empty(x.shape[0], self.program.out_channels, *x.shape[-2:])

    def _states(self, x: Tensor, state: Any, image: Tensor | None) -> list[Tensor | None] | None:
        """One for each port, None for zero; None where it starts as a plain run does."""
        if state is None and image is None:
            return None
        if self.State is None or len(self.program.marks) < 2:
            raise UnrainError("this program keeps no state that a call could go on from")
        fields = self.State._fields
        if state is None:
            # Pictures start at the one that was given; all else at zero.
            return [image if name == "image" else x if name == "rain" else None for name in fields]
        given = [getattr(state, name, None) for name in fields]
        if any(not isinstance(each, Tensor) for each in given):
            raise UnrainError(f"a state of this network holds {', '.join(fields)}")
        if image is not None:
            given = [image if name == "image" else each for name, each in zip(fields, given, strict=True)]
        return given

    def _left(self, context: _Context, run: int, mark: int) -> Any:
        if self.State is None:
            return None
        return self.State(*context.lend([context.core.state(run, mark, k) for k in range(len(self.State._fields))]))


def _code(dtype: str) -> int:
    """Of maps or products; the core says which it takes."""
    return native.DTYPES[getattr(torch, dtype)]


class _Context:
    """The core's context. States that were lent are views of its memory."""

    def __init__(self, core: Context, key: tuple[int, ...]) -> None:
        self.core, self.key = core, key
        self.memory = core.memory
        self._lent: list[weakref.ref[Tensor]] = []

    def start(self, run: int, x: Tensor) -> None:
        self.core.start(run, x.data_ptr())

    def advance(self, mark: int, picture: Tensor) -> None:
        self._overwritten()
        self.core.advance(mark, picture.data_ptr())

    def advance_timed(self, mark: int) -> list[int]:
        self._overwritten()
        return self.core.advance_timed(mark, 0)

    def lend(self, places: list[dict]) -> list[Tensor]:
        views = [self._view(place) for place in places]
        for view in views:
            view.lent_by = self  # type: ignore[attr-defined]
        self._lent = [weakref.ref(view) for view in views]
        return views

    def let_go(self) -> None:
        """What was lent and is still held goes on in memory of its own."""
        for each in self._held():
            each.set_(each.clone())
            del each.lent_by
        self._lent = []

    def fill(self, states: Sequence[Tensor | None]) -> None:
        """The ports of a run that goes on from these states."""
        places = [self.core.port(k) for k in range(len(states))]
        ports = [self._view(place) for place in places]
        # Those that lie in this very memory could be written over by one another.
        moved = [
            each.clone() if each is not None and self._holds(each) and each.data_ptr() != port.data_ptr() else each
            for each, port in zip(states, ports, strict=True)
        ]
        for place, port, each in zip(places, ports, moved, strict=True):
            if each is not None and each.data_ptr() == port.data_ptr():
                continue
            if each is None or place["stored"] != place["channels"]:
                self._whole(place).zero_()
            if each is not None:
                if each.shape != port.shape:
                    raise UnrainError(
                        f"this state holds a map {list(each.shape)}, these pictures go with {list(port.shape)}"
                    )
                port.copy_(each)
        self._overwritten()

    def _overwritten(self) -> None:
        for each in self._held():
            each.lent_by = None  # type: ignore[attr-defined]
        self._lent = []

    def _held(self) -> list[Tensor]:
        return [each for each in (ref() for ref in self._lent) if each is not None]

    def _holds(self, x: Tensor) -> bool:
        begin = self.memory.data_ptr()
        return begin <= x.data_ptr() < begin + self.memory.numel()

    def _whole(self, place: dict) -> Tensor:
        dtype: torch.dtype = place["dtype"]
        shape = (self.key[0], place["height"], place["width"], place["stored"])
        count = torch.Size(shape).numel() * dtype.itemsize
        return self.memory[place["offset"] : place["offset"] + count].view(dtype).view(shape)

    def _view(self, place: dict) -> Tensor:
        """[B, C, H, W]; of a picture what is not padding."""
        view = self._whole(place)[..., : place["channels"]].permute(0, 3, 1, 2)
        _, height, width, _ = self.key
        down = place["stored"] == 4 and place["height"] >= height and place["width"] >= width
        return view[..., :height, :width] if down else view


class _Contexts:
    """As many as calls overlap, for pictures of the latest size; idle ones of other sizes are dropped."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._lock = threading.RLock()  # a generator may be dropped, and give back, at any point
        self._idle: list[_Context] = []
        self._key: tuple[int, ...] = ()

    @contextmanager
    def one(self, x: Tensor, states: Sequence[Tensor | None] = ()) -> Iterator[_Context]:
        context = self._taken((x.shape[0], *x.shape[-2:], thread_count()), states)
        try:
            yield context
        finally:
            with self._lock:
                if context.key == self._key:
                    self._idle.append(context)

    def _taken(self, key: tuple[int, ...], states: Sequence[Tensor | None]) -> _Context:
        owners = [each.lent_by for each in states if each is not None and hasattr(each, "lent_by")]
        if any(owner is None for owner in owners):
            raise UnrainError("this state has been overwritten: go on from the last Step that this engine gave")
        with self._lock:
            former = [each for each in self._idle if each.key != key]
            self._idle = [each for each in self._idle if each.key == key]
            self._key = key
            own = [each for each in self._idle if each in owners]
            context = own[0] if own else self._idle[-1] if self._idle else None
            if context is not None:
                self._idle.remove(context)
        with torch.inference_mode():
            for each in former if context is None else (*former, *(() if own else (context,))):
                each.let_go()
            if context is not None:
                return context
            largest = max(former, key=lambda each: each.core.room.numel(), default=None)
            try:
                made = Context(self._prepared, *key, former=largest and largest.core)
            except ValueError as error:
                raise UnrainError(str(error)) from None
            return _Context(made, key)
