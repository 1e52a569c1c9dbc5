"""The proof before a swap: original and replacement on the same random inputs, forward and gradient.

It runs on copies, with new random parameters large enough to bend every nonlinearity (a zero-initialised gate would
hide its place), in train and in eval mode: once in float64, where only another formula can make a difference, and once
in the module's own dtype on its own device, where the fused kernel itself runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .accelerate_swap import Recipe

Inputs = Sequence[Any]

# Two formulas that agree to this in float64 are the same; what is left are constants rounded to float32.
SAME_FORMULA = 1e-5


class Unproven(Exception):
    """Why a module is left alone."""


def random_copy(module: nn.Module) -> nn.Module:
    """The same structure with other numbers: nothing is learned from weights that happen to be zero or equal."""
    try:
        twin = copy.deepcopy(module)
    except Exception as error:
        raise Unproven(f"it cannot be copied for the proof ({error})") from error
    with torch.no_grad():
        for parameter in twin.parameters():
            spread = 2 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 1.0
            parameter.normal_(0, spread)
    return twin


def prove(module: nn.Module, recipe: Recipe, trials: Sequence[Inputs]) -> None:
    """Raises Unproven unless `recipe` does what the module does for each of the inputs (float64, on the CPU)."""
    reference = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.empty(0))
    usual = random_copy(module)
    wide = at(copy.deepcopy(usual), "cpu", torch.float64)
    for training in (True, False):
        usual.train(training)
        wide.train(training)
        for inputs in trials:
            true = _results(wide, wide.forward, inputs)
            _compare(_results(wide, lambda *a: _run(wide, recipe, a), inputs), true, None, torch.float64, training)
            # rounded to the module's dtype first, so that both are asked the same question
            near = _move(inputs, reference.device, reference.dtype)
            exact = _results(wide, wide.forward, _move(near, "cpu", torch.float64))
            theirs = _results(usual, usual.forward, near)
            ours = _results(usual, lambda *a: _run(usual, recipe, a), near)
            _compare(ours, exact, theirs, reference.dtype, training)
            with torch.no_grad():  # where a recipe may take another way
                ours = _outputs(lambda *a: _run(usual, recipe, a), near)
            _compare(ours, _without_gradients(exact, ours), _without_gradients(theirs, ours), reference.dtype, training)


def at(module: nn.Module, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """`module.to(device, dtype)`, and the tensors that it keeps as plain attributes too."""
    module.to(device, dtype)
    for part in module.modules():
        for name, value in part.__dict__.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                part.__dict__[name] = value.detach().to(device, dtype)
    return module


def _run(module: nn.Module, recipe: Recipe, args: tuple[Any, ...]) -> Any:
    values = recipe.bind(module, args, {})
    if values is None:
        raise Unproven("the fused form does not take the inputs of the probe")
    return recipe.run(module, *values)


def keeps_to_itself(module: nn.Module, inputs: Inputs) -> None:
    """Raises Unproven where running the module changes it: a hidden state, a running mean, a counter."""
    call_original(module, inputs)  # the first call may well create what later calls use
    before = _fingerprint(module)
    call_original(module, inputs)
    if _fingerprint(module) != before:
        raise Unproven("it changes its own state when it runs")


def call_original(module: nn.Module, inputs: Inputs) -> Any:
    try:
        return module.forward(*inputs)
    except Exception as error:
        raise Unproven(
            f"its forward does not take the arguments of such a module ({type(error).__name__}: {error})"
        ) from error


def _fingerprint(module: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        values = {**part.__dict__, **part._buffers, **part._parameters}
        for key, value in values.items():
            if key not in ("_buffers", "_parameters", "_modules"):
                found[f"{name}.{key}"] = (id(value), value._version) if isinstance(value, Tensor) else id(value)
    return found


def _results(module: nn.Module, function: Callable[..., Any], inputs: Inputs) -> tuple[Any, list[Tensor | None]]:
    """What `function` returns, and the outputs and gradients in one list."""
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            leaves.append(value.detach().clone().requires_grad_())
            return leaves[-1]
        return type(value)(leaf(each) for each in value)

    args = [leaf(value) for value in inputs]
    kind, outputs = _outputs(function, args)
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)).sum() for out in outputs
    )
    wanted = leaves + [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return kind, [*(out.detach() for out in outputs), *gradients]


def _outputs(function: Callable[..., Any], inputs: Inputs) -> tuple[Any, list[Tensor]]:
    try:
        found = function(*inputs)
    except Unproven:
        raise
    except Exception as error:
        raise Unproven(f"it fails on random inputs ({type(error).__name__}: {error})") from error
    return type(found), [found] if isinstance(found, Tensor) else list(found)


def _without_gradients(results: tuple[Any, list[Any]], outputs: tuple[Any, list[Tensor]]) -> tuple[Any, list[Any]]:
    return results[0], results[1][: len(outputs[1])]


def _compare(ours: Any, true: Any, theirs: Any, dtype: torch.dtype, training: bool) -> None:
    """`theirs` is the original's own answer in `dtype`; None where the answer to compare with is exact."""
    mode = "training" if training else "eval"
    if ours[0] is not true[0] or len(ours[1]) != len(true[1]):
        raise Unproven(f"it returns something else in {mode} mode")
    for index, (mine, exact) in enumerate(zip(ours[1], true[1], strict=True)):
        if (mine is None) != (exact is None):
            raise Unproven(f"its gradients flow differently in {mode} mode")
        if mine is None:
            continue
        if mine.shape != exact.shape:
            raise Unproven(f"it returns another shape in {mode} mode")
        exact = exact.to("cpu", torch.float64)
        size, error = exact.abs().max(), (mine.to("cpu", torch.float64) - exact).abs().max()
        allowed = SAME_FORMULA * size
        if theirs is not None:  # rounding comes on top: as in the kernels' own tests, twice the original's and one ulp
            usual = (theirs[1][index].to("cpu", torch.float64) - exact).abs().max()
            allowed = allowed + 2 * usual + torch.finfo(dtype).eps * size
        if not bool(error <= allowed):
            raise Unproven(f"its results differ from the fused form's in {mode} mode, by {float(error / size):.1e}")


def _move(value: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, dtype)
    return type(value)(_move(each, device, dtype) for each in value)
