"""Turns one op's parts into `torch.library` ops: `unrain::<op>` and `unrain::<op>_backward`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from .registry import BackendUnavailable, Call, chosen, is_nhwc, resolve, use

LIMIT = 2**31  # elements of one tensor: the kernels count in 32 bits

NAMESPACE = "unrain"  # of the ops; a copy of this folder takes another (export/kernels/hub.py)
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
HALF = (torch.float16, torch.bfloat16)
Tensors = tuple[torch.Tensor | None, ...]


def define(
    name: str,
    schema: str,
    *,
    arrange: Callable[..., tuple[Any, ...]],
    describe: Callable[..., Call],
    allocate: Callable[..., Tensors],
    backward: bool = False,
) -> Callable[..., Any]:
    """Registers one op and returns its overload.

    arrange(*args) checks the arguments and returns them dense and in one layout; describe(*args) names the kind of
    call; allocate(*args) makes the outputs, real or fake. All three see arguments in schema order. `backward` registers
    the op as the backward of `name`: it then runs the implementation's `backward`.
    """
    full = f"{name}_backward" if backward else name
    single = schema.rstrip().endswith("-> Tensor")
    many = schema.rstrip().endswith("-> Tensor[]")

    def pack(out: Tensors) -> Any:
        # A gradient nobody asked for has no place in a schema of plain tensors: it travels as an empty tensor.
        if single:
            return out[0]
        filled = tuple(torch.empty(0) if each is None else each for each in out)
        return list(filled) if many else filled

    def kernel(*args: Any) -> Any:
        refuse_tangents(full, args)
        args = arrange(*args)
        out = allocate(*args)
        implementation = resolve(describe(*args))
        step = implementation.backward if backward else implementation.forward
        if implementation.__name__.endswith(".reference"):
            results = step(*args)
            for mine, theirs in zip(out, (results,) if torch.is_tensor(results) else results, strict=True):
                if mine is not None:
                    mine.copy_(theirs)
        else:
            step(out, *args)
        return pack(out)

    def transformed(*args: Any) -> Any:
        """Inside grad, jvp, vmap and the like of torch.func: plain PyTorch, which has them all."""
        reference = import_module(f"{__package__}.{name}.reference")
        results = (reference.backward if backward else reference.forward)(*args)
        return pack((results,) if isinstance(results, torch.Tensor) else results)

    def fake(*args: Any) -> Any:
        refuse_tangents(full, args)
        return pack(allocate(*arrange(*args)))

    LIBRARY.define(full + schema)
    LIBRARY.impl(full, kernel, "CompositeExplicitAutograd")
    LIBRARY.impl(full, transformed, "FuncTorchDynamicLayerFrontMode")
    torch.library.register_fake(f"{NAMESPACE}::{full}", fake, lib=LIBRARY)
    if backward:
        _differentiate_again(name)
    return getattr(getattr(torch.ops, NAMESPACE), full).default


def differentiate(
    name: str,
    save: Callable[[Any, tuple[Any, ...]], None],
    gradients: Callable[..., tuple[torch.Tensor | None, ...]],
) -> None:
    """Gives `unrain::<name>` its derivative.

    save(ctx, inputs) keeps what is needed; gradients(ctx, *grads) returns one gradient or None per input. An explicit
    `use(...)` around the forward pass holds for the backward pass too, in whichever thread autograd runs it.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.backend = chosen()
        save(ctx, inputs)

    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with use(ctx.backend):
            found = gradients(ctx, *grads)
        return tuple(grad if needed else None for grad, needed in zip(found, ctx.needs_input_grad, strict=True))

    torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup, lib=LIBRARY)


def _holds_tensors(part: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(part))


def _differentiate_again(name: str) -> None:
    """Second derivatives, rare as they are, go through the reference's backward, which is plain PyTorch."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        leaves, ctx.structure = tree_flatten(inputs)
        ctx.others = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        ctx.save_for_backward(*(leaf if isinstance(leaf, torch.Tensor) else None for leaf in leaves))

    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        reference = import_module(f"{__package__}.{name}.reference")
        leaves = [
            other if saved is None else saved.detach().requires_grad_()
            for saved, other in zip(ctx.saved_tensors, ctx.others, strict=True)
        ]
        wanted = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        with torch.enable_grad():
            results = reference.backward(*tree_unflatten(leaves, ctx.structure))
        results = (results,) if isinstance(results, torch.Tensor) else results
        pairs = [(r, g) for r, g in zip(results, cotangents, strict=True) if r is not None and r.requires_grad]
        found = torch.autograd.grad(
            [result for result, _ in pairs], wanted, [cotangent for _, cotangent in pairs], allow_unused=True
        )
        given = iter(found)
        gradients = [next(given) if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
        # autograd wants one None for a list of numbers, and a list of gradients for a list of tensors
        holds_tensors = [_holds_tensors(part) for part in tree_unflatten(leaves, ctx.structure)]
        return tuple(
            part if holds else None
            for part, holds in zip(tree_unflatten(gradients, ctx.structure), holds_tensors, strict=True)
        )

    torch.library.register_autograd(f"{NAMESPACE}::{name}_backward", backward, setup_context=setup, lib=LIBRARY)


def wants_grad(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def takes_plain_path(call: Call) -> bool:
    """Whether the plain PyTorch formula should run as it is, outside the op.

    In eager mode the reference stays ordinary PyTorch: differentiable any number of times, and open to every transform.
    Forward-mode derivatives and the transforms of torch.func, which the op does not have, always get it. Otherwise a
    traced function records the op, whose backend is then chosen when it runs.
    """
    if torch.compiler.is_dynamo_compiling():
        return forward_ad._current_level >= 0
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        if chosen() not in ("auto", "reference"):
            raise BackendUnavailable(call.op, chosen(), "it has no forward-mode derivative and no torch.func transform")
        return True
    return resolve(call).__name__.endswith(".reference")


def refuse_tangents(name: str, args: Any) -> None:
    """PyTorch takes the tangent of an op that has none for zero, without a word."""
    if forward_ad._current_level < 0:
        return
    for each in tree_leaves(args):
        if isinstance(each, torch.Tensor) and forward_ad.unpack_dual(each, level=0).tangent is not None:
            raise NotImplementedError(f"unrain::{name} has no forward-mode derivative; unrain.kernels.{name} has")


def autocast_to(dtype: torch.dtype | None, *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """Under autocast, the floating tensors in `dtype` (None: autocast's own); outside it, the tensors as they are."""
    first = tensors[0]
    if not isinstance(first, torch.Tensor) or not torch.is_autocast_enabled(first.device.type):
        return tensors
    dtype = dtype or torch.get_autocast_dtype(first.device.type)
    keep = (torch.float64,)
    return tuple(t.to(dtype) if t is not None and t.is_floating_point() and t.dtype not in keep else t for t in tensors)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: half precision is storage only."""
    return torch.float32 if dtype in HALF else dtype


def memory_format(layout: str) -> torch.memory_format:
    return torch.channels_last if layout == "nhwc" else torch.contiguous_format


def layout_of(image: torch.Tensor) -> str:
    """The layout an op works in, taken from its first image argument; what is not dense is worked on as NCHW."""
    return "nhwc" if is_nhwc(image) else "nchw"


def check_tensor(name: str, value: Any, dim: int | None = None, floating: bool = True) -> None:
    """One tensor argument: a floating one, of the right number of dimensions, small enough for 32-bit counts."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if floating and not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")
    if dim is not None and value.dim() != dim:
        raise ValueError(f"{name} must have {dim} dimensions, got shape {tuple(value.shape)}")
    if value.numel() >= LIMIT:
        raise ValueError(f"{name} has {value.numel()} elements; at most 2**31 - 1 are supported, split the batch")


def check_like(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor, dtype: bool = True) -> None:
    """Two tensor arguments that must live on one device and, mostly, have one dtype."""
    if value.device != other.device:
        raise ValueError(f"{name} is on {value.device} but {other_name} is on {other.device}")
    if dtype and value.dtype != other.dtype:
        raise TypeError(f"{name} has dtype {value.dtype} but {other_name} has {other.dtype}")
