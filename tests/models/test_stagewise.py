"""The stage-wise network: stages, states and their limit, refinement, and the layers the parameter count settled."""

import pytest
import torch
import torch.nn.functional as F

import unrain
from unrain.engine.errors import UnrainError


@pytest.fixture
def model():
    with torch.inference_mode():
        yield unrain.build("stagewise").eval()


def test_layers_and_their_parameters(model):
    def count(*modules):
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    assert count(model.feature) == 432
    assert count(model.block.dilated) == 9_280
    assert count(model.block.inner) == 2_352
    assert count(model.block.fusion) == 1_296
    assert count(model.rain) == 432
    assert count(model.outer) == 726
    assert count(model.refine) == 432 + 2_304 + 51
    assert [layer.dilation[0] for layer in model.block.dilated] == [1, 2, 4, 8]


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (45, 17)])
def test_any_size_from_8x8(model, size):
    y = model(torch.rand(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert y.isfinite().all()


def test_too_small_is_an_error(model):
    with pytest.raises(UnrainError, match="at least 8 x 8"):
        model(torch.rand(1, 3, 1, 1))


def test_against_the_equations(model):
    """Equations (1) to (5), written out with the network's weights."""
    x = torch.rand(1, 3, 20, 24)

    def act(z):
        return F.leaky_relu(z, 0.2)

    derained = [x]  # O_0, O_1, ...
    for t in range(1, 5):
        newest_first = torch.cat(derained[::-1], 1)
        fused = x if t == 1 else F.conv2d(newest_first, model.outer[t - 2].weight, model.outer[t - 2].bias)
        z = [act(F.conv2d(fused, model.feature.weight, padding=1))]
        for level, layer in enumerate(model.block.dilated):
            seen = torch.cat(z[::-1], 1)
            if level > 0:
                seen = act(F.conv2d(seen, model.block.inner[level - 1].weight, model.block.inner[level - 1].bias))
            z.append(act(F.conv2d(seen, layer.weight, layer.bias, padding=2**level, dilation=2**level)))
        y = act(F.conv2d(torch.cat(z[::-1], 1), model.block.fusion.weight, model.block.fusion.bias))
        derained.append(x - F.conv2d(y, model.rain.weight, padding=1))
    refined = act(F.conv2d(derained[-1], model.refine.conv1.weight, padding=1))
    refined = act(F.conv2d(refined, model.refine.conv2.weight, padding=1))
    refined = F.conv2d(refined, model.refine.conv3.weight, model.refine.conv3.bias)
    assert (model(x, T=4) - refined).abs().max() < 1e-6


def test_stages_end_with_the_plain_result(model):
    x = torch.rand(1, 3, 11, 13)
    y, images = model(x, stages=True)
    assert len(images) == 12
    assert torch.equal(y, images[-1])
    assert torch.equal(y, model(x))
    assert torch.equal(images[2], model(x, T=3))


def test_going_on_from_a_state_equals_an_uninterrupted_run(model):
    x = torch.rand(2, 3, 9, 12)
    whole, end = model.run(x, T=5)
    first, middle = model.run(x, T=2)
    rest, resumed = model.run(x, T=3, state=middle)
    assert all(torch.equal(a, b) for a, b in zip(whole, first + rest, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(end, resumed, strict=True))
    assert torch.equal(model(x, state=middle), model(x))  # by default, all stages that are left


def test_the_state_holds_every_rain_layer(model):
    x = torch.rand(1, 3, 10, 10)
    state = model.initial_state(x)
    assert torch.equal(state.image, x) and state.rains.shape == (1, 0, 10, 10)
    rains = []
    for _ in range(3):
        image, state = model.stage(x, state)
        rains.insert(0, x - state.image)
        assert torch.equal(image, model.refine(state.image))
    assert state.rains.shape == (1, 9, 10, 10)
    assert (state.rains - torch.cat(rains, 1)).abs().max() < 1e-6


@pytest.mark.parametrize("stages", [True, False])
def test_more_stages_than_there_are_weights_is_an_error(model, stages):
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(UnrainError, match=r"has 12 stages, 13 were asked for; .* build it with stages=13"):
        model(x, T=13, stages=stages)
    _, full = model.run(x)
    with pytest.raises(UnrainError, match="has 12 stages, 13 were asked for"):
        model(x, state=full, stages=stages)
    with pytest.raises(UnrainError, match="has 12 stages, 13 were asked for"):
        model.stage(x, full)
    with pytest.raises(UnrainError, match="T must be at least 1, got 0"):
        model(x, T=0, stages=stages)
    assert unrain.build("stagewise", stages=13)(x).shape == x.shape


def test_pictures_of_a_batch_do_not_mix(model):
    model.double()
    x = torch.rand(3, 3, 12, 9, dtype=torch.float64)
    alone = torch.cat([model(picture) for picture in x.split(1)])
    assert (model(x) - alone).abs().max() < 1e-12


def test_fp64_agrees_with_fp32(model):
    x = torch.rand(1, 3, 16, 16)
    single = model(x)
    double = model.double()(x.double())
    assert double.dtype == torch.float64
    assert (single - double).abs().max() < 1e-5


def test_the_same_input_gives_the_same_bits(model):
    x = torch.rand(1, 3, 20, 20)
    assert torch.equal(model(x), model(x))


def test_every_parameter_gets_a_gradient():
    model = unrain.build("stagewise")
    model(torch.rand(1, 3, 24, 24)).square().mean().backward()
    assert [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []
