"""What the recorder finds in a module: stages, states, padding, paths; and what it refuses."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.program import Refused
from unrain.engine.program.interpret import Interpreter
from unrain.engine.program.record import recorded


class Layered(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Memory(NamedTuple):
    mean: torch.Tensor
    count: torch.Tensor


class Running(nn.Module):
    """A mean of all frames, in two stages a frame or in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 3, 3, padding=1)

    def initial_state(self, x):
        return Memory(x, x.new_zeros(x.shape[0], 5, x.shape[2] // 2, x.shape[3] // 2))

    def step(self, x, state):
        mean = self.conv(torch.cat((x, state.mean), 1))
        return mean * 2, Memory(mean, state.count + F.pixel_unshuffle(x, 2)[:, :5])

    def forward(self, x):
        return self.step(x, self.initial_state(x))[0]


class Staged(Running):
    stages = 3
    stage = Running.step

    def forward(self, x):
        state = self.initial_state(x)
        for _ in range(self.stages):
            y, state = self.stage(x, state)
        return y


def test_a_step_has_a_run_from_nothing_and_one_from_a_state():
    found = recorded(Running())
    assert found.state == ("mean", "count")
    first, carry = found.runs
    assert first.ports == () and [port.shape for port in carry.ports] == [(3, 0), (5, 1)]
    assert [len(run.marks) for run in found.runs] == [1, 1]
    assert [state.shape for state in carry.marks[0].states] == [(3, 0), (5, 1)]


def test_stages_are_marks_one_after_the_other():
    for run in recorded(Staged()).runs:
        assert len(run.marks) == 3
        assert len({mark.picture for mark in run.marks}) == 3


def test_a_state_that_grows_is_recorded_from_nothing_only():
    model = unrain.build("stagewise", stages=3)
    found = recorded(model)
    assert len(found.runs) == 1 and len(found.runs[0].marks) == 3 and found.state == ()


HALF, ONE = torch.rand(3, 3, 2, 2), torch.rand(3, 3, 1, 1)


def padded(multiple, mode):
    """A network that pads, does nothing, and crops."""

    def function(x):
        height, width = x.shape[2:]
        return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode)[..., :height, :width]

    return function


@pytest.mark.parametrize(
    ("function", "multiple", "padding"),
    [
        (lambda x: x * 2, 1, 0),
        (padded(16, "reflect"), 16, 0),
        (padded(2, "replicate"), 2, 1),
        (padded(8, "constant"), 8, 2),
        (lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 4), 4), 4, 0),
    ],
)
def test_what_it_pads_to(function, multiple, padding):
    found = recorded(Function(function))
    assert (found.multiple, found.padding) == (multiple, padding)


def test_each_of_our_networks_pads_as_it_says():
    for name, multiple in (("srn", 1), ("timelapse", 16), ("wiper-s", 8)):
        assert recorded(unrain.build(name)).multiple == multiple


def test_an_unknown_operation_is_named_with_its_module():
    model = Layered(decoder=Layered(warp=Function(lambda x: F.interpolate(x, scale_factor=2.0)[:, :, ::2, ::2])))
    with pytest.raises(Refused, match=r"^aten\.upsample_nearest2d at decoder\.warp: the program has no such operation"):
        unrain.record(model)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.sort(1)[0], "aten.sort at forward"),
        (lambda x: F.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1], "aten.pad at forward.*inside the network"),
        (lambda x: x * torch.arange(320.0), "aten.mul at forward.*differ from place to place"),
        (lambda x: x.mean(3, keepdim=True).expand_as(x), "aten.mean at forward"),
        (lambda x: F.conv2d(x, x.mean((0, 2, 3)).view(1, 3, 1, 1)).repeat(1, 3, 1, 1), "aten.conv2d|aten.mean"),
        (lambda x: F.max_pool2d(x, 3, 1, 1), "aten.max_pool2d at forward.*overlaps"),
        (lambda x: F.avg_pool2d(x, 2), "no picture of the size"),
        (
            lambda x: F.conv_transpose2d(F.avg_pool2d(x, 2, ceil_mode=True), HALF, stride=2)[
                ..., : x.shape[2], : x.shape[3]
            ],
            "takes sizes that are no multiple of 2 without padding",
        ),
        (lambda x: F.pad(F.conv2d(x, ONE), (0, x.shape[3] % 2, 0, 0)), "aten.pad at forward.*inside the network"),
        (lambda x: (x, x), "returns tuple"),
        (lambda x: x if x.sum() > 0 else -x, "cannot be recorded"),
    ],
)
def test_refusals_are_one_line(function, said):
    with pytest.raises(Refused, match=said) as caught:
        unrain.record(Function(function))
    assert isinstance(caught.value, UnrainError) and "\n" not in str(caught.value)


def test_what_is_no_module_or_no_picture_is_one_line():
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got function"):
        unrain.record(lambda x: x)
    for example, got in (((torch.rand(1, 3, 8, 8),), "tuple"), (torch.rand(3, 8, 8), r"\(3, 8, 8\)")):
        with pytest.raises(TypeError, match=f"example must be a picture .*, got {got}"):
            unrain.record(nn.Identity(), example)


def test_a_state_that_is_no_named_tuple_is_refused():
    class Odd(Running):
        def initial_state(self, x):
            return [x, x]

    with pytest.raises(Refused, match=r"^Odd cannot be recorded: "):
        unrain.record(Odd())


def test_what_is_written_over_is_what_comes_after():
    def function(x):
        y = x * 2
        z = y.relu_()
        return y + z

    x = torch.rand(1, 3, 16, 16) - 0.5
    assert torch.equal(Interpreter(unrain.record(Function(function)))(x), function(x))


def test_writing_into_a_piece_of_a_map_is_refused():
    def function(x):
        y = x * 2
        y[:, :1].relu_()
        return y

    with pytest.raises(Refused, match=r"relu_ at forward: it writes where others may read"):
        unrain.record(Function(function))


def test_the_module_is_left_as_it_was():
    model = Layered(a=nn.Conv2d(3, 3, 1), b=nn.BatchNorm2d(3), c=nn.Dropout(0.5))
    model.c.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unrain.record(model)
    assert [each.training for each in (model, model.a, model.b, model.c)] == [True, True, True, False]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_program_does_not_learn_on():
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    program = unrain.record(model)
    before = [each.clone() for each in program.constants]
    with torch.no_grad():
        model[0].weight.add_(1)
    assert all(torch.equal(*pair) for pair in zip(before, program.constants, strict=True))


def test_a_network_in_double():
    model = nn.Sequential(nn.Conv2d(3, 3, 1)).double()
    assert torch.equal(unrain.record(model).constants[0], model[0].weight.detach().float().flatten())


def test_other_numbers_of_channels():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)).eval()
    program = Interpreter(unrain.record(model, torch.zeros(1, 1, 8, 8)))
    x = torch.rand(2, 1, 13, 17)
    assert torch.allclose(program(x), model(x), atol=1e-6)
    with pytest.raises(UnrainError, match=r"\[B, 1, H, W\]"):
        program(torch.rand(1, 3, 8, 8))
