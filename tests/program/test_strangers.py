"""Networks that are not ours, recorded with no special word for them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unrain
from unrain.engine.program import record
from unrain.engine.program.file import decoded
from unrain.engine.program.interpret import Interpreter

from .strangers import STRANGERS, stranger

COUNTS = {
    "DnCNN": {"conv": 17},
    "FFDNet": {"unshuffle": 1, "fill": 1, "conv": 12},
    "SRVGGNetCompact": {"conv": 18},
    "UNet": {"conv": 18, "pool": 3},
    "PReNet": {"conv": 73, "conv_lstm": 6},
    "NAFNet": {"conv": 72, "channel_norm": 16, "mul": 24, "mean": 8, "dense": 8},
    "EDSRBody": {"affine": 1, "conv": 19},
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_computes_what_it_does(name, counted):
    model = stranger(name)
    program = decoded(record(model).data)
    assert counted(program.runs[0]) == COUNTS[name]
    interpreter, model = Interpreter(program, torch.float64), model.double()
    for size in ((48, 40), (41, 54)):
        if name == "UNet" and size[0] % 8:
            continue  # its joins fit where all halvings come out even
        x = torch.rand(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            expected = model(x)
        assert (interpreter(x).double() - expected).abs().max() <= 2e-6 * max(1, expected.abs().max())


class OfOurModules(nn.Module):
    """Somebody's network made of what this project exports."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = unrain.GaussianPyramid()
        self.cell, self.larger = unrain.ConvLSTMCell(3, 16), unrain.ConvLSTMCell(16, 16, kernel_size=5)
        self.gru, self.memory = unrain.ConvGRUCell(16, 16), unrain.MemoryBank(20, 16)
        self.out = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half, _ = self.pyramid(x)
        h, state = self.cell(half)
        h, state = self.cell(half, state)
        h, state = self.larger(h, self.larger(h)[1])
        h, _ = self.gru(h, self.gru(h)[1])
        return x - F.pixel_shuffle(self.out(self.memory(h)).repeat(1, 4, 1, 1), 2)


def test_a_network_of_our_modules(counted):
    torch.manual_seed(0)
    model = OfOurModules().eval()
    program = record(model)
    counts = counted(program.runs[0])
    assert counts["conv_lstm"] == 2 and counts["lstm"] == 2 and counts["lerp"] == 1 and counts["memory_read"] == 1
    x = torch.rand(2, 3, 24, 40)
    with torch.no_grad():
        assert torch.allclose(Interpreter(program)(x), model(x), atol=1e-5)


def test_one_that_does_not_pad_is_given_pictures_that_fit():
    program = record(stranger("UNet"))
    assert program.multiple == 8
    assert Interpreter(program)(torch.rand(1, 3, 41, 54)).shape == (1, 3, 41, 54)
