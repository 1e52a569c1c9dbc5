"""SRN and BRN in all variants: sizes, stages, states, precision; and what tells the variants apart."""

import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError

SRNS = ["srn", "srn-direct", "srn-gru", "srn-x", "srn-plus"]
BRNS = ["brn", "brn-gru", "crn", "brn-r2x", "brn-x2r"]
ALL = SRNS + BRNS


@pytest.fixture(params=ALL)
def model(request):
    return unrain.build(request.param).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (17, 10)])
def test_any_size_from_8x8(model, size):
    y = model(torch.rand(1, 3, *size), T=2)
    assert y.shape == (1, 3, *size)
    assert y.isfinite().all()


@pytest.mark.parametrize("name", ["srn", "brn"])
def test_too_small_is_an_error(name):
    with pytest.raises(UnrainError, match="at least 8 x 8"):
        unrain.build(name)(torch.rand(1, 3, 1, 1))


@pytest.mark.parametrize("name", ["srn", "brn"])
def test_no_stage_is_an_error(name):
    with pytest.raises(UnrainError, match="T must be at least 1, got 0"):
        unrain.build(name)(torch.rand(1, 3, 8, 8), T=0)


def test_stages_end_with_the_plain_result(model):
    x = torch.rand(1, 3, 11, 13)
    y, images = model(x, T=3, stages=True)
    assert len(images) == 3
    assert torch.equal(y, images[-1])
    assert torch.equal(y, model(x, T=3))
    assert torch.equal(images[0], model(x, T=1))


def test_T_defaults_to_the_stages_of_the_model(model):
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(model(x), model(x, T=6))
    model.stages = 2
    assert torch.equal(model(x), model(x, T=2))


def test_going_on_from_a_state_equals_an_uninterrupted_run(model):
    x = torch.rand(2, 3, 9, 12)
    whole, end = model.run(x, T=4)
    first, middle = model.run(x, T=1)
    rest, resumed = model.run(x, T=3, state=middle)
    assert all(torch.equal(a, b) for a, b in zip(whole, first + rest, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(end, resumed, strict=True))
    assert torch.equal(model(x, T=3, state=middle), whole[-1])


def test_a_loop_over_stage_is_forward(model):
    x = torch.rand(1, 3, 8, 10)
    state = model.initial_state(x)
    assert torch.equal(state.image, x)
    for _ in range(3):
        image, state = model.stage(x, state)
    assert torch.equal(image, model(x, T=3))
    assert torch.equal(image, state.image)


def test_pictures_of_a_batch_do_not_mix(model):
    model.double()  # batched and single convolutions may add in another order; in fp64 that is far below the bound
    x = torch.rand(3, 3, 12, 9, dtype=torch.float64)
    together = model(x, T=2)
    alone = torch.cat([model(picture, T=2) for picture in x.split(1)])
    assert (together - alone).abs().max() < 1e-12


def test_fp64_agrees_with_fp32(model):
    x = torch.rand(1, 3, 16, 16)
    single = model(x, T=3)
    double = model.double()(x.double(), T=3)
    assert double.dtype == torch.float64
    assert (single - double).abs().max() < 1e-5


def test_the_same_input_gives_the_same_bits(model):
    x = torch.rand(1, 3, 20, 20)
    assert torch.equal(model(x, T=2), model(x, T=2))


def test_every_parameter_gets_a_gradient(model):
    with torch.inference_mode(False), torch.enable_grad():
        model = unrain.build(model.name)
        model(torch.rand(1, 3, 12, 12), T=3).square().mean().backward()
        silent = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_residual_and_direct_differ_by_the_rainy_picture():
    residual, direct = unrain.build("srn"), unrain.build("srn-direct")
    direct.load_state_dict(residual.state_dict())
    x = torch.rand(1, 3, 10, 10)
    assert torch.equal(residual(x, T=1), direct(x, T=1) + x)
    assert not torch.allclose(residual(x, T=2), direct(x, T=2) + x)


def test_srn_x_forgets_the_rainy_picture():
    model = unrain.build("srn-x")
    x, other = torch.rand(2, 1, 3, 10, 10)
    _, state = model.run(x, T=1)
    assert torch.equal(model(x, T=1, state=state), model(other, T=1, state=state))


@pytest.mark.parametrize(
    ("name", "rain_sees_image", "image_sees_rain"),
    [
        ("brn", True, True),
        ("brn-gru", True, True),
        ("crn", False, False),
        ("brn-r2x", False, True),
        ("brn-x2r", True, False),
    ],
)
def test_which_hidden_states_cross(name, rain_sees_image, image_sees_rain):
    """Disturb one branch's hidden state alone and look whether the other branch's hidden state notices."""
    model = unrain.build(name).double()
    x = torch.rand(1, 3, 10, 10, dtype=torch.float64)
    _, before = model.run(x, T=1)
    _, after = model.stage(x, before)
    _, other_x = model.stage(x, before._replace(h_x=before.h_x + 1))
    assert torch.equal(other_x.h_r, after.h_r) != rain_sees_image
    # The new rain layer reaches the image branch in every variant, so its output is muted here.
    model.rain.f_out.weight.zero_(), model.rain.f_out.bias.zero_()
    _, after = model.stage(x, before)
    _, other_r = model.stage(x, before._replace(h_r=before.h_r + 1))
    assert torch.equal(other_r.h_x, after.h_x) != image_sees_rain


def test_the_image_branch_sees_the_new_rain_layer():
    model = unrain.build("crn")
    x = torch.rand(1, 3, 10, 10)
    before = model(x, T=1)
    model.rain.f_out.bias.add_(0.1)
    assert not torch.equal(before, model(x, T=1))


def test_brn_starts_both_layers_at_the_rainy_picture():
    x = torch.rand(1, 3, 8, 8)
    state = unrain.build("brn").initial_state(x)
    assert torch.equal(state.rain, x) and torch.equal(state.image, x)
    assert state._fields == ("image", "rain", "h_x", "c_x", "h_r", "c_r")
    assert not any(memory.any() for memory in state[2:])
