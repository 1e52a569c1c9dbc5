"""MSPFN: its sizes, its wiring, and which numbers a gradient can and cannot reach."""

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

import unrain
from unrain import kernels
from unrain.engine.errors import UnrainError
from unrain.engine.models import mspfn
from unrain.engine.models.mspfn import MSPFN, ConvLSTM, MSPFNConfig

SIZES = [(8, 8), (31, 45), (77, 93)]
LAYOUTS = ["paper", "fit", "repo", "light"]

# (M, N): parameters in layout "paper", "fit" and "repo"
COUNTS = {
    (30, 1): (22_427_744, 21_803_744, 24_548_192),
    (17, 1): (13_702_976, 13_349_376, 15_823_424),
    (17, 2): (17_582_240, 17_112_768, 19_702_688),
    (13, 2): (13_984_928, 13_625_920, 16_105_376),
    (10, 3): (13_568_864, 13_224_544, 15_689_312),
    (8, 5): (14_964_896, 14_580_384, 17_085_344),
    (5, 1): (5_649_344, 5_545_344, 7_769_792),
    (6, 3): (9_058_784, 8_852_192, 11_179_232),
    (0, 1): (2_293_664, 2_293_664, 4_414_112),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(layout="paper", modules=1, units=1):
    return MSPFN(MSPFNConfig(modules, units, layout)).eval()


@pytest.mark.parametrize("layout", range(3))
@pytest.mark.parametrize(("modules", "units"), COUNTS)
def test_parameters(modules, units, layout):
    with torch.device("meta"):
        network = MSPFN(MSPFNConfig(modules, units, LAYOUTS[layout]))
    assert count(network) == COUNTS[modules, units][layout]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mspfn", 13_702_976),
        ("mspfn-m30n1", 22_427_744),
        ("mspfn-m17n2", 17_582_240),
        ("mspfn-m13n2", 13_984_928),
        ("mspfn-m10n3", 13_568_864),
        ("mspfn-m8n5", 14_964_896),
        ("mspfn-light", 1_656_656),
    ],
)
def test_parameters_by_name(name, parameters):
    with torch.device("meta"):
        assert count(unrain.build(name)) == parameters


def test_parameters_by_layout_override():
    with torch.device("meta"):
        assert count(unrain.build("mspfn", layout="fit")) == 13_349_376
        assert count(unrain.build("mspfn", layout="repo")) == 15_823_424


def test_parameters_of_the_parts():
    """The counts the paper gives by difference of its models, and what the authors' code gives for one module."""
    with torch.device("meta"):
        paper, fit, light = (MSPFN(MSPFNConfig(5, 1, layout)) for layout in ("paper", "fit", "light"))
    assert count(paper.cfm) == 1_918_432
    assert count(paper.initial) + count(paper.rm) == 375_232
    assert count(paper.ffms[0]) == 671_136
    assert count(fit.ffms[0]) == 650_336
    assert sum(p.numel() for p in light.parameters() if p.dim() == 4) == 1_651_152  # weights only


def test_lstm_widths():
    with torch.device("meta"):
        widths = {
            layout: [(rru.lstm.gates.in_channels - rru.lstm.state, rru.lstm.state) for rru in units(layout)]
            for layout in ("paper", "repo")
        }
    assert widths == {"paper": [(32, 32), (64, 64), (128, 128)], "repo": [(32, 64), (32, 128), (32, 256)]}


def units(layout):
    cfm = small(layout, modules=0).cfm
    return cfm.rru_quarter, cfm.rru_half, cfm.rru_full


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_any_size(layout, size):
    network = small(layout)
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        y = network(x)
    assert y.shape == x.shape and y.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_double_precision_agrees(layout):
    network = small(layout, units=2)
    x = torch.rand(1, 3, 31, 45)
    with torch.inference_mode():
        single, double = network(x), network.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_of_a_batch_do_not_mix(layout):
    network = small(layout).double()
    x = torch.rand(3, 3, 24, 17, dtype=torch.float64)
    with torch.inference_mode():
        together, apart = network(x), torch.cat([network(one[None]) for one in x])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients(layout):
    """Every parameter gets one; from a zero state, only the forget gate and the weights on the state get nothing."""
    network = small(layout, units=2).double().train()
    network(torch.rand(2, 3, 32, 32, dtype=torch.float64)).square().mean().backward()
    idle = {
        f"cfm.rru_{scale}.lstm.gates.{kind}" for scale in ("quarter", "half", "full") for kind in ("weight", "bias")
    }
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert name in idle or parameter.grad.abs().max() > 0, name
    for rru in (network.cfm.rru_quarter, network.cfm.rru_half, network.cfm.rru_full):
        lstm, state = rru.lstm, rru.lstm.state
        reads_input, reads_state = lstm.gates.weight.grad.split((lstm.gates.in_channels - state, state), dim=1)
        assert reads_state.abs().max() == 0
        for gate, weight, bias in zip("ifgo", reads_input.chunk(4), lstm.gates.bias.grad.chunk(4), strict=True):
            assert (weight.abs().max() > 0) == (gate != "f"), gate
            assert (bias.abs().max() > 0) == (gate != "f"), gate


def test_conv_lstm_step():
    """Against one convolution per gate, from a state that is not zero."""
    lstm = ConvLSTM(3, 5).double()
    x, h, c = (torch.randn(2, channels, 6, 7, dtype=torch.float64) for channels in (3, 5, 5))
    inputs = torch.cat((x, h), dim=1)
    i, f, g, o = (
        F.conv2d(inputs, weight, bias, padding=1)
        for weight, bias in zip(lstm.gates.weight.chunk(4), lstm.gates.bias.chunk(4), strict=True)
    )
    new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    new_h = o.sigmoid() * new_c.tanh()
    out, state = lstm(x, (h, c))
    for got, wanted in ((out, new_h), (state[0], new_h), (state[1], new_c)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_start():
    """The authors' start: forget bias 1, slopes 0, LSTM weights of standard deviation about 1e-3, cut at 2e-3."""
    network = small()
    lstm = network.cfm.rru_full.lstm
    i, f, g, o = lstm.gates.bias.chunk(4)
    assert (f == 1).all() and (torch.cat((i, g, o)) == 0).all()
    assert 0.8e-3 < lstm.gates.weight.std() < 1e-3 and lstm.gates.weight.abs().max() <= 2e-3
    assert all((m.weight == 0).all() for m in network.modules() if isinstance(m, torch.nn.PReLU))


@pytest.mark.parametrize("factor", [2, 4])
def test_pyramid_is_the_box_average(factor):
    image = torch.rand(2, 3, 24, 32, dtype=torch.float64)
    boxes = image.reshape(2, 3, 24 // factor, factor, 32 // factor, factor).mean(dim=(3, 5))
    torch.testing.assert_close(mspfn.box_average(image, factor), boxes)
    torch.testing.assert_close(mspfn.box_average(image, factor), F.avg_pool2d(image, factor), rtol=0, atol=0)
    with kernels.use("reference"):
        level = kernels.gaussian_pyramid(image, factors=(factor,), kernel="box")[-1]
    torch.testing.assert_close(mspfn.box_average(image, factor), level)


def test_sees_bgr_between_minus_one_and_one():
    network = small(modules=0)
    seen = {}
    for index, name in enumerate(("quarter", "half", "full")):
        network.initial[index].register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    x = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        network(x)
    blue_first = torch.stack((x[:, 2], x[:, 1], x[:, 0]), dim=1) * 2 - 1
    torch.testing.assert_close(seen["full"], blue_first)
    torch.testing.assert_close(seen["half"], F.avg_pool2d(blue_first, 2))
    torch.testing.assert_close(seen["quarter"], F.avg_pool2d(blue_first, 4))


def test_rain_is_subtracted_in_rgb():
    """A network whose rain is a constant of each BGR channel takes half of it from the matching RGB channel."""
    network = small(modules=0)
    x = torch.rand(1, 3, 16, 16)
    rain = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)  # blue, green, red
    network.rm.register_forward_hook(lambda *_: rain.expand(1, 3, 16, 16))
    with torch.inference_mode():
        torch.testing.assert_close(x - network(x), rain.flip(1).expand_as(x) / 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_skips_carry_the_scale_alone(layout):
    """With silent units, CFM and FFM hand on each scale's own feature, not its sum with what smaller scales add."""
    network = small(layout)
    channels = network.rm.to_rain.in_channels * 2
    x = mspfn.Scales(*(torch.randn(1, channels, side, side) for side in (8, 16, 32)))
    ffm = network.ffms[0]
    silent = [rru.after for rru in (network.cfm.rru_quarter, network.cfm.rru_half, network.cfm.rru_full)]
    silent += [urab.ups[-1] for urab in (ffm.urab_quarter, ffm.urab_half, ffm.urab_full)]
    for layer in silent:
        torch.nn.init.zeros_(layer[0].weight)
    for module in (network.cfm, ffm):
        for got, wanted in zip(module(x), x, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_larger_scales_see_smaller_ones(layout):
    """In CFM and FFM the quarter scale depends on itself, the half on two scales, the full on all three."""
    network = small(layout)
    channels = network.rm.to_rain.in_channels * 2
    x = mspfn.Scales(*(torch.randn(1, channels, side, side, requires_grad=True) for side in (8, 16, 32)))
    for module in (network.cfm, network.ffms[0]):
        for index, output in enumerate(module(x)):
            grads = torch.autograd.grad(output.sum(), x, retain_graph=True, allow_unused=True)
            assert [grad is not None and grad.abs().max() > 0 for grad in grads] == [i <= index for i in range(3)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_way_up_joins_before_and_after(layout):
    """In a URAB each transposed convolution starts from [what its halving gave, what came up to it]."""
    urab = small(layout).ffms[0].urab_full
    given, taken, came = [], [], []
    for down in urab.downs:
        down.register_forward_hook(lambda _, inputs, output: given.append(output))
    for up in urab.ups:
        up.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
        up.register_forward_hook(lambda _, inputs, output: came.append(output))
    urab.attention.register_forward_hook(lambda _, inputs, output: came.append(output))
    with torch.inference_mode():
        urab(torch.randn(1, urab.downs[0][0].in_channels, 16, 16))
    assert len(taken) == (2 if layout == "light" else 1)
    for before, after, joined in zip(reversed(given), came, taken, strict=False):
        assert torch.equal(joined, torch.cat((before, after), dim=1))


def test_shared_attention_of_one_unit_is_a_channel_attention_block():
    block, shared = mspfn.RCAB(64), mspfn.SharedAttentionUnits(64, 1)
    mspfn.initialise(block)  # its biases are zero then, as the shared units have none
    with torch.no_grad():
        shared.bodies[0][0][0].weight.copy_(block.body[0].weight)
        shared.bodies[0][0][1].weight.copy_(block.body[1].weight)
        shared.bodies[0][1].weight.copy_(block.body[2].weight)
    shared.attention.load_state_dict(block.attention.state_dict())
    x = torch.randn(2, 64, 9, 7)
    torch.testing.assert_close(shared(x), block(x))


def test_configuration_survives_json():
    config = MSPFNConfig(modules=3, layout="fit")
    assert MSPFNConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("wrong", [{"layout": "papr"}, {"modules": -1}, {"units": 0}])
def test_wrong_configuration(wrong):
    with pytest.raises(UnrainError):
        MSPFNConfig(**wrong)
