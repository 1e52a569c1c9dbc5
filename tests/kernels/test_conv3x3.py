"""The engine's Winograd convolution against PyTorch in double precision."""

import pytest
import torch
import torch.nn.functional as F

from unrain import kernels
from unrain.kernels import native
from unrain.kernels.conv3x3 import packed as conv3x3

pytestmark = pytest.mark.skipif(conv3x3.available() is not None, reason=str(conv3x3.available()))
# (dtype of the maps, dtype of the products, error allowed, as a share of the largest result)
KINDS = [(torch.float32, torch.float32, 2e-5), (torch.bfloat16, torch.float32, 8e-3)]
KINDS += [(torch.bfloat16, torch.bfloat16, 4e-2)] if conv3x3.multiplies_bf16() else []


def channels_last(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), dtype=dtype).contiguous(memory_format=torch.channels_last)


def layer(inputs, outputs):
    torch.manual_seed(0)
    return torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5, torch.randn(outputs)


@pytest.fixture(params=native.tiers())
def tier(request, monkeypatch):
    monkeypatch.setattr(native, "tier", request.param)
    return request.param


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (3, 5), (4, 4), (8, 8), (10, 1), (9, 33), (37, 60)])
def test_matches_pytorch(dtype, products, room, size):
    weight, bias = layer(48, 35)
    first, second = channels_last(2, 32, *size, dtype=dtype), channels_last(2, 16, *size, dtype=dtype)
    add, out = channels_last(2, 35, *size, dtype=dtype), poisoned(2, 35, *size, dtype=dtype)
    packed = conv3x3.pack(weight, bias, products)
    conv3x3.convolve([first, second], packed, out, conv3x3.Workspace(), relu=True, add=add, relu_sum=True)
    expected = F.conv2d(torch.cat((first, second), 1).double(), weight.double(), bias.double(), padding=1)
    expected = (expected.relu() + add).relu()
    assert (out - expected).abs().max() <= room * expected.abs().max()


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
@pytest.mark.parametrize("first_step", [False, True])
def test_a_cell_matches_its_equations(dtype, products, room, first_step):
    weight, bias = layer(64, 128)
    x, h = (channels_last(1, 32, 18, 23, dtype=dtype) for _ in range(2))
    c = channels_last(1, 32, 18, 23)
    h_out, c_out = poisoned(1, 32, 18, 23, dtype=dtype), poisoned(1, 32, 18, 23)
    if first_step:
        h, c = torch.zeros_like(h), torch.zeros_like(c)
        kept = [0, 2, 3]
        used = weight.unflatten(0, (4, 32))[kept].flatten(0, 1)[:, :32]
        packed = conv3x3.pack(used, bias.unflatten(0, (4, 32))[kept].flatten(), products)
        conv3x3.cell([x], packed, None, h_out, c_out, conv3x3.Workspace())
    else:
        conv3x3.cell([x, h], conv3x3.pack(weight, bias, products), c, h_out, c_out, conv3x3.Workspace())
    gates = F.conv2d(torch.cat((x, h), 1).double(), weight.double(), bias.double(), padding=1)
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * c + i.sigmoid() * g.tanh()
    assert (c_out - cell).abs().max() <= 2 * room
    assert (h_out - o.sigmoid() * cell.tanh()).abs().max() <= 2 * room


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_reaches_its_tiles_and_no_others(tier, dtype, products, room, bad):
    """No ReLU makes a zero of it; beyond the tiles whose 6 x 6 pixels hold it, not a bit changes."""
    weight, bias = layer(32, 32)
    packed = conv3x3.pack(weight, bias, products)
    x, add = channels_last(1, 32, 21, 30, dtype=dtype), channels_last(1, 32, 21, 30, dtype=dtype)
    results = []
    for value in (x[0, 7, 8, 11].item(), bad):
        x[0, 7, 8, 11] = value
        results.append(poisoned(1, 32, 21, 30, dtype=dtype))
        conv3x3.convolve([x], packed, results[-1], conv3x3.Workspace(), relu=True, add=add, relu_sum=True)
    clean, spoiled = results
    plain = F.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu()
    reached = torch.zeros(21, 30, dtype=torch.bool)
    reached[4:12, 8:16] = True  # row 8 is also above the second row of tiles, column 11 is left of the fourth
    assert not (spoiled.isfinite() & ~plain.isfinite()).any()
    assert torch.equal(spoiled[..., ~reached], clean[..., ~reached]) and clean.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["x", "h", "c"])
def test_a_cell_lets_nan_through(tier, bad, place):
    weight, bias = layer(64, 128)
    tensors = {name: channels_last(1, 32, 9, 10) for name in ("x", "h", "c")}
    tensors[place][0, 3, 4, 5] = bad
    h_out, c_out = channels_last(1, 32, 9, 10), channels_last(1, 32, 9, 10)
    packed = conv3x3.pack(weight, bias)
    conv3x3.cell([tensors["x"], tensors["h"]], packed, tensors["c"], h_out, c_out, conv3x3.Workspace())
    gates = F.conv2d(torch.cat((tensors["x"], tensors["h"]), 1).double(), weight.double(), bias.double(), padding=1)
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * tensors["c"] + i.sigmoid() * g.tanh()
    assert not (c_out.isfinite() & ~c.isfinite()).any()
    assert not (h_out.isfinite() & ~(o.sigmoid() * c.tanh()).isfinite()).any()


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
def test_it_may_write_where_it_reads_a_pixel_alone(dtype, products, room):
    weight, bias = layer(32, 32)
    x, add = channels_last(2, 32, 13, 22, dtype=dtype), channels_last(2, 32, 13, 22, dtype=dtype)
    packed, apart = conv3x3.pack(weight, bias, products), torch.empty_like(add)
    conv3x3.convolve([x], packed, apart, conv3x3.Workspace(), relu=True, add=add)
    conv3x3.convolve([x], packed, add, conv3x3.Workspace(), relu=True, add=add)
    assert torch.equal(add, apart)
    c = channels_last(2, 32, 13, 22)
    packed = conv3x3.pack(*layer(32, 128), products)
    h, other, c_apart = torch.empty_like(x), torch.empty_like(x), torch.empty_like(c)
    conv3x3.cell([x], packed, c, h, c_apart, conv3x3.Workspace())
    conv3x3.cell([x], packed, c, other, c, conv3x3.Workspace())
    assert torch.equal(h, other) and torch.equal(c, c_apart)


def test_every_tier_and_thread_count(tier):
    weight, bias = layer(32, 16)
    x = channels_last(1, 32, 30, 41)
    packed = conv3x3.pack(weight, bias)
    results = []
    for threads in (1, 3):
        out = poisoned(1, 16, 30, 41)
        with kernels.threads(threads):
            conv3x3.convolve([x], packed, out, conv3x3.Workspace())
        results.append(out)
    assert torch.equal(*results)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert (results[0] - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_wrong_arguments_are_named():
    packed = conv3x3.pack(*layer(32, 16))
    with pytest.raises(ValueError, match="must be a multiple of 16"):
        conv3x3.convolve([channels_last(1, 8, 8, 8)], packed, poisoned(1, 16, 8, 8), conv3x3.Workspace())
    with pytest.raises(ValueError, match="have 16 channels where the weights take 32"):
        conv3x3.convolve([channels_last(1, 16, 8, 8)], packed, poisoned(1, 16, 8, 8), conv3x3.Workspace())
    assert "multiple of 16" in conv3x3.can_run([24])


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (3, 5), (4, 4), (9, 33), (37, 60)])
def test_a_transposed_convolution_matches_pytorch(dtype, products, room, size):
    torch.manual_seed(0)
    weight, bias, slope = torch.randn(48, 32, 3, 3) / (9 * 48) ** 0.5, torch.randn(32), torch.rand(32) - 0.3
    first, second = channels_last(2, 32, *size, dtype=dtype), channels_last(2, 16, *size, dtype=dtype)
    large = [2 * side for side in size]
    add, out = channels_last(2, 32, *large, dtype=dtype), poisoned(2, 32, *large, dtype=dtype)
    packed = conv3x3.pack_transposed(weight, bias, products, slope)
    workspace = conv3x3.Workspace()
    workspace.at_least(1 << 24).fill_(255)  # NaN where nothing is written
    conv3x3.convolve([first, second], packed, out, workspace, add=add)
    x = torch.cat((first, second), 1).double()
    expected = F.conv_transpose2d(x, weight.double(), bias.double(), stride=2, padding=1, output_padding=1)
    expected = F.prelu(expected, slope.double()) + add
    assert (out - expected).abs().max() <= room * expected.abs().max()


def test_a_transposed_convolution_on_every_tier(tier):
    weight = torch.randn(32, 16, 3, 3) / 17
    x, out = channels_last(1, 32, 30, 41), poisoned(1, 16, 60, 82)
    conv3x3.convolve([x], conv3x3.pack_transposed(weight, None), out, conv3x3.Workspace())
    expected = F.conv_transpose2d(x.double(), weight.double(), stride=2, padding=1, output_padding=1)
    assert (out - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("slopes", [1, 35])
def test_a_prelu_on_every_tier(tier, slopes):
    weight, bias = layer(32, 35)
    slope = torch.linspace(-0.5, 0.5, slopes)
    x, out = channels_last(1, 32, 30, 41), poisoned(1, 35, 30, 41)
    x[0, 3, 4, 5] = float("nan")
    conv3x3.convolve([x], conv3x3.pack(weight, bias, slope=slope), out, conv3x3.Workspace())
    expected = F.prelu(F.conv2d(x.double(), weight.double(), bias.double(), padding=1), slope.double())
    assert out[..., :8, :12].isnan().any() and not out[..., 8:, :].isnan().any()
    finite = out.isfinite()
    assert not (finite & expected.isnan()).any()
    assert (out - expected)[finite].abs().max() <= 2e-5 * expected[finite].abs().max()


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (16, 16), (37, 60)])
@pytest.mark.parametrize("dilation", [2, 3, 8])
def test_a_dilated_convolution_matches_pytorch(dtype, products, room, size, dilation):
    weight, bias = layer(16, 19)
    x, out = channels_last(2, 16, *size, dtype=dtype), poisoned(2, 19, *size, dtype=dtype)
    packed = conv3x3.pack(weight, bias, products, dilation=dilation)
    conv3x3.convolve([x], packed, out, conv3x3.Workspace())
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=dilation, dilation=dilation)
    assert (out - expected).abs().max() <= room * expected.abs().max()


@pytest.mark.parametrize(("dtype", "products", "room"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (37, 60)])
def test_a_pointwise_convolution_of_five_maps_matches_pytorch(dtype, products, room, size):
    torch.manual_seed(0)
    weight, bias, slope = torch.randn(19, 80, 1, 1) / 80**0.5, torch.randn(19), torch.rand(19)
    maps = [channels_last(2, 16, *size, dtype=dtype) for _ in range(5)]
    add, out = channels_last(2, 19, *size, dtype=dtype), poisoned(2, 19, *size, dtype=dtype)
    packed = conv3x3.pack_pointwise(weight, bias, products, slope)
    conv3x3.convolve(maps, packed, out, conv3x3.Workspace(), add=add)
    expected = F.conv2d(torch.cat(maps, 1).double(), weight.double(), bias.double())
    expected = F.prelu(expected, slope.double()) + add
    assert (out - expected).abs().max() <= room * expected.abs().max()


def test_dilated_and_pointwise_on_every_tier(tier):
    x, out = channels_last(1, 32, 30, 41), poisoned(1, 16, 30, 41)
    weight, _ = layer(32, 16)
    conv3x3.convolve([x], conv3x3.pack(weight, None, dilation=4), out, conv3x3.Workspace())
    expected = F.conv2d(x.double(), weight.double(), padding=4, dilation=4)
    assert (out - expected).abs().max() <= 2e-5 * expected.abs().max()
    conv3x3.convolve([x], conv3x3.pack_pointwise(weight[..., :1, :1], None), out, conv3x3.Workspace())
    expected = F.conv2d(x.double(), weight[..., :1, :1].double())
    assert (out - expected).abs().max() <= 2e-5 * expected.abs().max()


def gradients(x, weight, bias, grad, function, **how):
    leaves = [each.detach().requires_grad_() for each in (x, weight, bias)]
    return torch.autograd.grad(function(*leaves, **how), leaves, grad)


def largest_error(found, expected):
    return (found - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize("size", [(1, 1), (1, 13), (4, 4), (9, 33), (70, 61)])
@pytest.mark.parametrize(("inputs", "outputs", "dilation"), [(3, 16, 1), (32, 67, 1), (67, 32, 2), (16, 3, 3)])
def test_gradients_match_pytorch(size, inputs, outputs, dilation):
    weight, bias = layer(inputs, outputs)
    x, grad = channels_last(2, inputs, *size), channels_last(2, outputs, *size)
    how = dict(dilation=dilation)
    with kernels.use("native"):
        found = gradients(x, weight, bias, grad, kernels.conv3x3, **how)
    wide = [each.double() for each in (x, weight, bias, grad)]
    expected = gradients(*wide, F.conv2d, padding=dilation, **how)
    for mine, true in zip(found, expected, strict=True):
        assert largest_error(mine, true) <= 2e-5


def test_gradients_on_every_tier_and_thread_count(tier):
    weight, bias = layer(32, 48)
    x, grad = channels_last(2, 32, 70, 61), channels_last(2, 48, 70, 61)
    results = []
    for threads in (1, 3):
        with kernels.threads(threads), kernels.use("native"):
            results.append(gradients(x, weight, bias, grad, kernels.conv3x3))
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)
    expected = gradients(*(each.double() for each in (x, weight, bias, grad)), F.conv2d, padding=1)
    for mine, true in zip(results[0], expected, strict=True):
        assert largest_error(mine, true) <= 2e-5
