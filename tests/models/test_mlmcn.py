"""MLMCN: its sizes, the memory that runs through a subnetwork, and where gradients go."""

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.models.mlmcn import BCM, BLOCKS, MLMCN, MLMCNConfig

PARAMETERS = {
    "mlmcn": 6_005_440,
    "mlmcn-n1": 2_742_784,
    "mlmcn-n2": 4_633_536,
    "mlmcn-no-bcm": 6_035_136,
    "mlmcn-no-rmm": 5_990_592,
    "mlmcn-555": 5_672_256,
    "mlmcn-385": 6_005_440,
    "mlmcn-835": 6_005_440,
    "mlmcn-853": 6_005_440,
}
PRINTED = {"mlmcn-n1": 2.731e6, "mlmcn-n2": 4.614e6, "mlmcn": 6.001e6}


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(block="mcb", depths=(2, 2, 2)):
    return MLMCN(MLMCNConfig(depths, block)).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    with torch.device("meta"):
        parameters = count(unrain.build(name))
    assert parameters == PARAMETERS[name]
    if name in PRINTED:
        assert abs(parameters / PRINTED[name] - 1) < 0.005
    if name.startswith("mlmcn-no"):
        assert abs(parameters / 6.0e6 - 1) < 0.01


def test_depths_by_name():
    with torch.device("meta"):
        depths = {
            name: [(len(sub.blocks), 2**sub.halvings) for sub in unrain.build(name).subnetworks] for name in PARAMETERS
        }
    assert depths["mlmcn"] == [(3, 4), (5, 2), (8, 1)]
    assert depths["mlmcn-n2"] == [(5, 2), (8, 1)]
    assert depths["mlmcn-n1"] == [(8, 1)]
    assert depths["mlmcn-385"] == [(3, 4), (8, 2), (5, 1)]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", [(8, 8), (31, 45), (77, 93)])
def test_any_size(block, size):
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        y = small(block)(x)
    assert y.shape == x.shape and y.isfinite().all()


@pytest.mark.parametrize("block", BLOCKS)
def test_double_precision_agrees(block):
    network = small(block)
    x = torch.rand(1, 3, 31, 45)
    with torch.inference_mode():
        single, double = network(x), network.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_pictures_of_a_batch_do_not_mix(block):
    network = small(block).double()
    x = torch.rand(3, 3, 24, 17, dtype=torch.float64)
    with torch.inference_mode():
        together, apart = network(x), torch.cat([network(one[None]) for one in x])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients(block):
    """All parameters get one. Only what meets the zero state, in a subnetwork's first block, gets exactly nothing."""
    network = small(block).double().train()
    network(torch.rand(2, 3, 32, 32, dtype=torch.float64)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    if block == "bcm":
        return
    for subnetwork in network.subnetworks:
        for index, memory in enumerate(subnetwork.blocks):
            gates = memory.rmm.lstm.gates
            forget = gates.weight.grad.chunk(4)[1].abs().max(), gates.bias.grad.chunk(4)[1].abs().max()
            on_state = gates.weight.grad[:, 32:].abs().max()
            assert [bool(grad > 0) for grad in (*forget, on_state)] == [index > 0] * 3


def test_state_runs_through_a_subnetwork():
    """Each block starts from the state the one before it left, the first from zeros, and hands on h, not the gate o."""
    subnetwork = small(depths=(3,)).subnetworks[0]
    calls = []
    heard = []
    for block in subnetwork.blocks:
        block.register_forward_hook(lambda _, inputs, output: calls.append((inputs[2], output[1])))
        block.rmm.residual.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    with torch.inference_mode():
        subnetwork(torch.rand(1, 3, 16, 16))
    first, second, third = calls
    assert all((part == 0).all() for part in first[0])
    assert second[0] is first[1] and third[0] is second[1]
    assert all(h is state[0] for h, (_, state) in zip(heard, calls, strict=True))
    weights = {block.rmm.lstm.gates.weight.data_ptr() for block in subnetwork.blocks}
    assert len(weights) == 3


def test_every_block_sees_the_rainy_picture_of_its_level():
    network = small()
    seen = []
    for subnetwork in network.subnetworks:
        for block in subnetwork.blocks:
            block.rmm.transition.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 64:]))
    x = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        network(x)
    image = x.flip(1) * 2 - 1
    levels = [F.avg_pool2d(image, 4)] * 2 + [F.avg_pool2d(image, 2)] * 2 + [image] * 2
    for got, wanted in zip(seen, levels, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("block", BLOCKS)
def test_silent_block_passes_its_input_on_once(block):
    silent = BLOCKS[block]()
    for module in silent.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.zeros_(module.weight)
    feature, image, zeros = torch.randn(1, 64, 8, 8), torch.randn(1, 3, 8, 8), torch.zeros(1, 32, 8, 8)
    with torch.inference_mode():
        out, _ = silent(feature, image, (zeros, zeros))
    torch.testing.assert_close(out, feature, rtol=0, atol=0)


def test_compensation_joins_before_and_after():
    """The way up starts from [before, after] the residual units, each of which adds to what it gets."""
    bcm = BCM()
    steps, joined = [], []
    for unit in bcm.units:
        unit.register_forward_hook(lambda _, inputs, output: steps.append((inputs[0], output)))
    bcm.up.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    estimate = torch.randn(1, 64, 8, 8)
    with torch.inference_mode():
        bcm(estimate)
        before = bcm.down(estimate)
    x = before
    for got, change in steps:
        torch.testing.assert_close(got, x)
        x = x + change
    assert len(steps) == 3 and before.shape[-2:] == (4, 4)
    torch.testing.assert_close(joined[0], torch.cat((before, x), dim=1))


def test_shares_add_up():
    """Three shares at full size; half their sum, with red and blue swapped back, is what the picture loses."""
    network = small()
    x = torch.rand(2, 3, 16, 24)
    with torch.inference_mode():
        shares = network.rain_shares(x.flip(1) * 2 - 1)
        assert [share.shape for share in shares] == [x.shape] * 3
        torch.testing.assert_close(x - network(x), (shares[0] + shares[1] + shares[2]).flip(1) / 2)


def test_configuration_survives_json():
    config = MLMCNConfig(depths=(4, 2), block="rmm")
    assert MLMCNConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("wrong", [{"depths": ()}, {"depths": (3, 0)}, {"block": "lstm"}])
def test_wrong_configuration(wrong):
    with pytest.raises(UnrainError):
        MLMCNConfig(**wrong)
