"""A training step through the engine's convolutions against the same step in plain PyTorch, both beside float64."""

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import nn

from unrain import build, kernels
from unrain.engine.training.convolutions import FastConvolutions, fits, wide
from unrain.kernels import native

needs_native = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))


def gradients(model, x, context):
    model = deepcopy(model)
    with context:
        y = model(x)
    y.square().mean().backward()
    return torch.cat([each.grad.double().flatten() for each in model.parameters() if each.grad is not None])


@needs_native
@pytest.mark.parametrize("name", ["srn", "mspfn-light", "mlmcn-n1"])
def test_a_step_is_as_accurate_as_in_plain_pytorch(name):
    torch.manual_seed(0)
    model = build(name).to(memory_format=torch.channels_last).train()
    x = torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    plain, fast = gradients(model, x, nullcontext()), gradients(model, x, FastConvolutions())
    exact = gradients(model.double(), x.double(), nullcontext())
    assert not torch.equal(plain, fast)
    assert (fast - exact).norm() <= 6 * (plain - exact).norm()


@needs_native
def test_no_bit_depends_on_the_threads_or_the_run():
    torch.manual_seed(0)
    model = build("srn").to(memory_format=torch.channels_last).train()
    x = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    results = []
    for threads in (1, 1, 3):
        with kernels.threads(threads):
            results.append(gradients(model, x, FastConvolutions()))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_the_gradients_of_prelu_are_pytorchs(form):
    torch.manual_seed(0)
    x = torch.randn(2, 32, 20, 21).contiguous(memory_format=form)
    x[0, 0, 0, :2] = torch.tensor((0.0, -0.0))
    layer, grad = nn.PReLU(32), torch.randn(2, 32, 20, 21)
    nn.init.normal_(layer.weight)
    given = (x.requires_grad_(True), layer.weight)
    assert wide(x, layer.weight) and not wide(x[:1], layer.weight) and not wide(x, layer.weight[:1])
    plain = torch.autograd.grad(layer(x), given, grad)
    with FastConvolutions():
        y = layer(x)
    assert torch.equal(y, layer(x)) and type(y.grad_fn).__name__ == "PReLUBackward"
    fast = torch.autograd.grad(y, given, grad)
    assert torch.equal(plain[0], fast[0])
    torch.testing.assert_close(fast[1], plain[1])


@pytest.mark.parametrize(
    ("change", "size", "expected"),
    [
        (dict(), 32, True),
        (dict(bias=False), 32, True),
        (dict(dilation=2, padding=2), 32, True),
        (dict(in_channels=67), 32, True),
        (dict(in_channels=3), 32, False),
        (dict(out_channels=3), 32, False),
        (dict(stride=2), 32, False),
        (dict(padding=0), 32, False),
        (dict(dilation=2), 32, False),
        (dict(groups=2), 32, False),
        (dict(kernel_size=5, padding=2), 32, False),
        (dict(dtype=torch.float64), 32, False),
        (dict(), 8, False),
    ],
)
def test_what_fits(change, size, expected):
    settings = dict(in_channels=32, out_channels=32, kernel_size=3, padding=1, dtype=torch.float32) | change
    conv = nn.Conv2d(**settings)
    x = torch.zeros(2, conv.in_channels, size, size, dtype=conv.weight.dtype)
    how = (conv.stride, conv.padding, conv.dilation, conv.groups)
    assert fits(x, conv.weight, conv.bias, *how) is expected
    with torch.no_grad():
        assert not fits(x, conv.weight, conv.bias, *how)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(x, conv.weight, conv.bias, *how)
    conv.requires_grad_(False)
    assert not fits(x, conv.weight, conv.bias, *how)


@needs_native
@pytest.mark.slow
def test_the_loss_falls_as_in_plain_pytorch():
    """2,000 steps of srn on the same pictures. Rounding makes them two runs; ours is nowhere a tenth worse."""
    clean = torch.nn.functional.interpolate(torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)), 32)
    curves = []
    for context in (nullcontext, FastConvolutions):
        torch.manual_seed(0)
        model = build("srn").to(memory_format=torch.channels_last).train()
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        losses = []
        for _ in range(2000):
            wanted = clean[torch.randint(64, (2,))].contiguous(memory_format=torch.channels_last)
            rain = (torch.rand(2, 1, 32, 32) > 0.95).float() * 0.5
            with context():
                found = model((wanted + rain).clamp(0, 1).contiguous(memory_format=torch.channels_last), 2)
            loss = (found - wanted).abs().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        curves.append(torch.tensor(losses).view(10, 200).mean(1))
    plain, fast = curves
    print(f"plain {[round(x, 5) for x in plain.tolist()]}, fast {[round(x, 5) for x in fast.tolist()]}")
    assert fast[-1] < 0.5 * fast[0]
    assert (fast <= 1.1 * plain).all()
