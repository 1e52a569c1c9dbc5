"""Compiled models beside the originals: what ran, and how far apart the results are."""

import copy
import functools
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd.profiler import profile

from unrain.engine.compile import Report, accelerate, backend

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def anew():
    """Each test compiles anew, from the same random numbers."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def ran():
    """`ran(function, *args)`: how often each operation of ours ran in a call; it is compiled before it is counted."""

    def counted(function, *args):
        function(*args)
        with profile() as seen:
            function(*args)
        counts = {}
        for event in seen.function_events:
            if event.name.startswith("unrain::"):
                name = event.name.removeprefix("unrain::")
                counts[name] = counts.get(name, 0) + 1
        return counts

    return counted


@pytest.fixture
def quick():
    """Compiled with the rest left to eager PyTorch, as Inductor's C++ takes its time; with `.report`."""

    def compiled(model, **settings):
        options = {"rest": "eager", **settings.pop("options", {})}
        if isinstance(model, torch.nn.Module):
            return accelerate(model, options=options, **settings)
        report = Report()
        function = torch.compile(model, backend=functools.partial(backend, report=report), options=options, **settings)
        function.report = report
        return function

    return compiled


@pytest.fixture
def compared(quick):
    """Checks results and gradients of a model against the original: beside float64, at most twice the original's error
    and one unit in the last place, as for every operation of ours. Returns the compiled model."""

    def check(model, inputs, training=True, compiled=None):
        ours = (
            compiled
            if compiled is not None
            else quick(copy.deepcopy(model) if isinstance(model, torch.nn.Module) else model)
        )
        exact = copy.deepcopy(model).double() if isinstance(model, torch.nn.Module) else model
        true = results(exact, at(inputs, torch.float64), training)
        usual = results(copy.deepcopy(model), inputs, training)
        found = results(ours, inputs, training)
        within_the_rule(found, usual, true)
        return ours

    return check


def within_the_rule(found, usual, true):
    """The worst result of ours beside the worst of the original's, each by the size of what it is off from."""

    def worst(given):
        return max(
            float((a.double() - b).abs().max() / b.abs().max())
            for a, b in zip(given, true, strict=True)
            if b is not None
        )

    for mine, theirs in zip(found, usual, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    assert worst(found) <= 2 * worst(usual) + torch.finfo(usual[0].dtype).eps


def at(value, dtype):
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return type(value)(at(each, dtype) for each in value)


def leaves(value):
    return torch.utils._pytree.tree_leaves(value)


def results(model, inputs, training):
    """Outputs, and with `training` the gradients to inputs and parameters."""
    copies = torch.utils._pytree.tree_map(lambda each: each.detach().clone().requires_grad_(training), inputs)
    with torch.set_grad_enabled(training):
        outputs = [each for each in leaves(model(*copies)) if isinstance(each, torch.Tensor)]
    if not training:
        return outputs
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (each * torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each)).sum() for each in outputs
    )
    wanted = [each for each in leaves(copies) if each.is_floating_point()]
    wanted += list(model.parameters()) if isinstance(model, torch.nn.Module) else []
    return [each.detach() for each in outputs] + list(torch.autograd.grad(total, wanted, allow_unused=True))
