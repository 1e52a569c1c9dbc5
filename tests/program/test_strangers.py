"""Networks that are not ours, recorded with no special word for them."""

import pytest
import torch

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


def test_one_that_does_not_pad_is_given_pictures_that_fit():
    program = record(stranger("UNet"))
    assert program.multiple == 8
    assert Interpreter(program)(torch.rand(1, 3, 41, 54)).shape == (1, 3, 41, 54)
