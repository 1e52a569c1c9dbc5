"""The wiper networks: what they cost, what they are made of, any size, and the state that goes from frame to frame."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.models.wiper import WiperState
from unrain.engine.psnr import psnr

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models" / "wiper.md"
NAMES = ("wiper-s", "wiper", "wiper-l")


def macs_per_pixel(model, side=64):
    """Multiplications of all convolutions for each pixel of the picture."""
    total = 0

    def count(layer, _inputs, output):
        nonlocal total
        total += layer.weight[0].numel() * output[0].numel()

    hooks = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        model(torch.rand(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return total / side**2


@pytest.mark.parametrize(
    ("name", "low", "high"), [("wiper-s", 4_500, 5_500), ("wiper", 15_000, 18_000), ("wiper-l", 36_000, 42_000)]
)
def test_operations_per_pixel(name, low, high):
    found = macs_per_pixel(unrain.build(name))
    assert low < found < high
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert f" {found:,.0f} |" in row


@pytest.mark.parametrize("name", NAMES)
def test_only_layers_that_every_runtime_has(name):
    model = unrain.build(name)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert (layer.kernel_size, layer.stride) in {((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (1, 1))}
            assert layer.padding == tuple(side // 2 for side in layer.kernel_size) and layer.bias is not None
            assert layer.out_channels % 16 == 0 or layer is model.leave
        else:
            assert not list(layer.parameters(recurse=False)) and not list(layer.buffers(recurse=False))


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (45, 17), (64, 40)])
def test_any_size_from_8x8(size):
    model = unrain.build("wiper-s").eval()
    x = torch.rand(2, 3, *size)
    state = model.initial_state(x)
    for _ in range(2):
        y, state = model.step(x, state)
        assert y.shape == state.picture.shape == x.shape


def test_against_the_equations():
    """The whole network written out, in float64, on a second frame."""
    model = unrain.build("wiper", quarter_pairs=1).double()
    x, before = torch.rand(2, 1, 3, 24, 16, dtype=torch.float64)
    hidden = 6 * torch.rand(1, 32, 6, 4, dtype=torch.float64)

    def leaky(x):
        return torch.where(x > 0, x, 0.1 * x)

    def conv(layer, x, stride=1):
        return F.conv2d(x, layer.weight, layer.bias, stride, layer.kernel_size[0] // 2)

    def pair(block, x):
        return leaky(x + conv(block.second, leaky(conv(block.first, x))))

    # Channel 4 c + 2 row + column of the halved picture is what is at (row, column) of each block of two by two.
    both = torch.cat((x, before), 1)
    blocks = torch.stack([both[:, :, r::2, c::2] for r in (0, 1) for c in (0, 1)], 2).flatten(1, 2)
    half = leaky(conv(model.enter, blocks))
    quarter = leaky(conv(model.merge, torch.cat((leaky(conv(model.to_quarter, half, 2)), hidden), 1)))
    eighth = leaky(conv(model.to_eighth, quarter, 2))
    for block in model.deep:
        eighth = pair(block, eighth)
    quarter = leaky(conv(model.refine, quarter + F.pixel_shuffle(conv(model.from_eighth, eighth), 2)))
    quarter = pair(model.body[0], quarter)
    fine = half + F.pixel_shuffle(conv(model.from_quarter, quarter), 2)
    y = x + F.pixel_shuffle(conv(model.leave, leaky(conv(model.finish, fine))), 2)

    got, state = model.step(x, WiperState(before, hidden))
    torch.testing.assert_close(got, y)
    torch.testing.assert_close(state.picture, y.clamp(0, 1))
    torch.testing.assert_close(state.hidden, conv(model.remember, quarter).clamp(0, 6))


def test_a_picture_is_the_first_frame_and_a_state_changes_the_second():
    model = unrain.build("wiper-s").eval()
    x = torch.rand(1, 3, 32, 24)
    empty = model.initial_state(x)
    assert all(not part.any() for part in empty)
    first, state = model.step(x, empty)
    assert torch.equal(model(x), first) and torch.equal(model(x, empty), first)
    assert state.picture.min() >= 0 and state.picture.max() <= 1
    assert state.hidden.min() >= 0 and state.hidden.max() <= 6
    assert not torch.equal(model(x, state), first)


def test_a_state_of_another_size_is_one_line():
    model = unrain.build("wiper-s")
    small, large = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 16)
    with pytest.raises(UnrainError, match=r"state is of shape \[1, 3, 16, 16\] where frames of 32 x 16 need"):
        model.step(large, model.initial_state(small))


def test_a_wrong_configuration():
    for field, value in (("half", 0), ("eighth_pairs", -1), ("hidden", 1.5)):
        with pytest.raises(UnrainError, match=f"{field} must be a whole number of at least"):
            unrain.build("wiper", **{field: value})


@pytest.mark.parametrize("name", NAMES)
def test_bf16_keeps_40_dB(name):
    """Weights and activations in bf16 against fp32, over four frames with the state carried, on the change it makes."""
    torch.manual_seed(3)
    exact = unrain.build(name).eval()
    x = torch.rand(1, 3, 48, 64)
    rounded = unrain.build(name).eval()
    rounded.load_state_dict(exact.state_dict())
    rounded = rounded.bfloat16()
    one, other = exact.initial_state(x), rounded.initial_state(x.bfloat16())
    with torch.no_grad():
        for _ in range(4):
            wanted, one = exact.step(x, one)
            got, other = rounded.step(x.bfloat16(), other)
    error = (got.float() - wanted).square().mean()
    assert psnr(float(error)) > 40


def test_a_frame_after_none_is_a_first_frame():
    model, x = unrain.build("wiper-s").eval(), torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        assert torch.equal(model.step(x, None)[0], model.step(x, model.initial_state(x))[0])
