"""Which implementation runs an op: the choice, the reasons, and the settings an implementation reads.

How an implementation plugs in
------------------------------
An implementation of op X by backend B ("native", "triton", "cuda") is the module `kernels/X/B.py`. It is imported on
first use, so it may import what it needs at its top; an import that fails is the reason why it is not available.
It provides

    available() -> str | None
        Why this machine cannot run it at all, or None. Asked once per process; shown by `unrain.kernels.info()`.
    can_run(call: Call) -> str | None
        Why it cannot run this kind of call, or None. Asked once per kind of call (`Call` is the cache key), so it may
        be slow, and must depend on nothing but `call`. `call.grad`: the backward pass will be asked for too.
    forward(out, *args) -> None
        Fills the tensors in the tuple `out`. `args` are those of the op's schema, in its order.
    backward(out, *args) -> None
        The same for the schema of `unrain::X_backward`. Without it, the implementation is passed over when a gradient
        is needed.
    slower(call: Call) -> str | None      (optional)
        Why "auto" should pass it over although it can run: a measured reason. An explicit `use(B)` still takes it.

What the framework promises to `forward` and `backward`:
  * arguments were checked (shapes, dtypes, devices), and detached from autograd;
  * every image tensor of one call is dense and in one layout: `call.layout` is "nchw" or "nhwc" (channels_last memory
    format, shape still [B,C,H,W]); inside, `is_nhwc(first image argument)` tells the same. Matrices are row-major;
  * `out` is allocated by the framework in that layout with the dtypes of the op's docstring, uninitialised (the tests
    fill it with NaN first), never overlapping an input; a gradient that nobody asked for is None in `out`;
  * tensors may be empty (batch 0): nothing to do then, but reductions must still write their result.
It promises back: NaN and Inf propagate, accumulation is in float32 (float64 for float64), the result is the same bits
for every thread count. CPU code uses at most `thread_count()` threads.

`kernels/X/reference.py` holds the same maths as plain PyTorch: `forward(*args)` and `backward(*args)` with the same
arguments, but returning new tensors, and differentiable as it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch

log = logging.getLogger("unrain.kernels")

BACKENDS = ("reference", "native", "triton", "cuda")
# What "auto" tries, in this order. Triton on the CPU is the interpreter: only ever an explicit choice.
_AUTO_ORDER = {"cpu": ("native", "reference"), "cuda": ("cuda", "triton", "reference")}
_AUTO_ORDER_ELSEWHERE = ("reference",)

OPS = (
    "lstm_gates",
    "conv_lstm",
    "gru_gates",
    "conv3x3",
    "charbonnier",
    "memory_read",
    "memory_update",
    "gaussian_pyramid",
    "frame_to_tensor",
    "tensor_to_frame",
    "ssim",
)


class BackendUnavailable(RuntimeError):
    """An explicit choice of backend that cannot be met."""

    def __init__(self, op: str, backend: str, reason: str):
        super().__init__(op, backend, reason)
        self.op, self.backend, self.reason = op, backend, reason

    def __str__(self) -> str:
        return f"{self.op} cannot run on the {self.backend} backend: {self.reason}"


class Call(NamedTuple):
    """What a choice may depend on; calls that are equal here run the same implementation."""

    op: str
    device: torch.device
    dtype: torch.dtype
    layout: str  # "nchw", "nhwc", or "rows" for matrices
    grad: bool
    detail: tuple[Any, ...] = ()  # what else matters to this op; its docstring in kernels/<op>/__init__.py says


_chosen: ContextVar[str] = ContextVar("unrain_backend", default="auto")
_threads: ContextVar[int | None] = ContextVar("unrain_threads", default=None)
_decisions: dict[tuple[str, Call], ModuleType] = {}
_modules: dict[tuple[str, str], ModuleType | str] = {}
_loading = threading.RLock()


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Runs every op of the block on one backend, or raises BackendUnavailable where it cannot.

    Holds for this thread and context alone, and for the backward passes of what was computed inside. `use("auto")`
    gives the default back. Set it outside a function that torch.compile traces, not inside.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend must be auto, {', '.join(BACKENDS)}; got {backend!r}")
    token = _chosen.set(backend)
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen() -> str:
    return _chosen.get()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets the native kernels of the block use at most `count` threads (the default is torch.get_num_threads())."""
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a positive whole number of threads, got {count!r}")
    token = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(token)


def thread_count() -> int:
    return _threads.get() or torch.get_num_threads()


def resolve(call: Call) -> ModuleType:
    """The implementation for this kind of call; kernels/<op>/reference.py where nothing faster can."""
    key = (_chosen.get(), call)
    found = _decisions.get(key)
    if found is None:
        found = _decisions[key] = _decide(*key)
    return found


def _decide(backend: str, call: Call) -> ModuleType:
    if backend != "auto":
        reason = _refusal(call, backend)
        if reason is not None:
            raise BackendUnavailable(call.op, backend, reason)
        return _module(call.op, backend)  # type: ignore[return-value]  # no refusal: it is a module
    for candidate in _AUTO_ORDER.get(call.device.type, _AUTO_ORDER_ELSEWHERE):
        module = _module(call.op, candidate)
        reason = _refusal(call, candidate)
        if reason is None and hasattr(module, "slower"):
            reason = module.slower(call)
        if reason is None:
            return module  # type: ignore[return-value]
        log.info("%s: not on the %s backend: %s (%s)", call.op, candidate, reason, call)
    raise AssertionError("the reference refuses nothing")


def _refusal(call: Call, backend: str) -> str | None:
    module = _module(call.op, backend)
    if isinstance(module, str):
        return module
    if backend == "reference":
        return None
    if call.grad and not hasattr(module, "backward"):
        return "it has no backward pass"
    return module.can_run(call)


def _module(op: str, backend: str) -> ModuleType | str:
    """The implementation's module, or why there is none."""
    key = (op, backend)
    if key not in _modules:
        with _loading:
            _modules[key] = _load(op, backend)
    return _modules[key]


def _load(op: str, backend: str) -> ModuleType | str:
    name = f"{__package__}.{op}.{backend}"
    try:
        module = import_module(name)
        return module if backend == "reference" else module.available() or module
    except ModuleNotFoundError as error:
        return "not implemented" if error.name == name else f"{error.name} is not installed"
    except Exception as error:  # a broken driver or half an install must not break the other backends
        log.warning("%s: the %s backend failed to load", op, backend, exc_info=True)
        return f"{type(error).__name__}: {error}"


def info() -> dict[str, dict[str, str]]:
    """Per op, per backend: "available", or the reason why not."""

    def state(op: str, backend: str) -> str:
        module = _module(op, backend)
        return module if isinstance(module, str) else "available"

    return {op: {backend: state(op, backend) for backend in BACKENDS} for op in OPS}


def forget() -> None:
    """Forgets every decision, so that the next call of each kind decides (and logs) again."""
    with _loading:
        _decisions.clear()
        _modules.clear()


def is_nhwc(image: torch.Tensor) -> bool:
    """Whether a dense [B,C,H,W] tensor has its channels innermost; where both readings hold, it counts as NCHW."""
    return not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last)
