"""One step of training, forward, backward and optimiser: `-k training`."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from case import Case, race
from rivals import compiled, plain_ssim, window

from unrain import accelerate, build
from unrain.engine.nn import SSIMLoss

BATCH, PATCH, STAGES = 4, 64, 3


def training() -> Case:
    """srn, minus the SSIM of its last picture, Adam; every contender steps from the same weights on the same batch."""
    torch.manual_seed(0)
    model = build("srn").train()
    rainy, clean = torch.rand(2, BATCH, 3, PATCH, PATCH)

    def contender(change, loss, dtype=torch.float32, layout=torch.contiguous_format):
        made = []

        def step():
            if not made:
                own = deepcopy(model).to(dtype).to(memory_format=layout)
                made.extend((change(own), torch.optim.Adam(own.parameters(), 1e-3), own))
            network, optimiser, own = made
            for parameter, start in zip(own.parameters(), model.parameters(), strict=True):
                parameter.data.copy_(start)
            x, y = (each.to(dtype).contiguous(memory_format=layout) for each in (rainy, clean))
            value = loss(network(x, STAGES), y)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            return value.detach(), own.gate.weight.grad if hasattr(own, "gate") else next(own.parameters()).grad

        return step

    def usual(x, y):
        return 1 - plain_ssim(x, y, window(x.dtype, "cpu"))

    def same(network):
        return network

    last = torch.channels_last
    ours = SSIMLoss()
    return Case(
        f"training step, srn, {STAGES} stages, {BATCH} patches of {PATCH}",
        {
            "unrain": contender(accelerate, ours, layout=last),
            "eager": contender(same, usual),
            "eager channels-last": contender(same, usual, layout=last),
            "torch.compile channels-last": contender(compiled, usual, layout=last),
        },
        contender(same, usual, torch.float64),
        0,
        plain=contender(same, usual, layout=last),
        rounds=7,
    )


NAMES = ("unrain", "eager", "eager channels-last", "torch.compile channels-last")


@pytest.mark.parametrize(("name", "contender"), [("training step", each) for each in NAMES])
def test_training(name, contender, compete, request):
    rounds = request.config.getoption("--rounds")

    def run_race(names):
        case = training()
        return race(replace(case, rounds=rounds) if rounds else case, names)

    compete("training", name, contender, run_race)
