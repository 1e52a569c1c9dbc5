"""One step of training, forward, backward and optimiser: `-k training`."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from case import Case, race
from rivals import compiled, plain_ssim, window

from unrain import accelerate, build
from unrain.engine.nn import SSIMLoss
from unrain.engine.training.convolutions import fast_convolutions

PATCH = 64
NETWORKS = {"srn": (4, 4), "mspfn-light": (4, None), "mlmcn-n1": (2, None)}  # pictures of a batch, stages
ROOM = 12  # of the gradients of `conv3x3`: docs/ops/conv3x3.md


def training(network: str) -> Case:
    """Minus the SSIM of the last picture, Adam; every contender steps from the same weights on the same batch."""
    torch.manual_seed(0)
    batch, stages = NETWORKS[network]
    model = build(network).train()
    clean = torch.rand(batch, 3, PATCH, PATCH)
    rainy = (clean + 0.1 * torch.rand(batch, 1, PATCH, PATCH)).clamp(0, 1)  # SSIM of two unrelated ones is 0, and noise

    def contender(change, loss, dtype=torch.float32, layout=torch.contiguous_format, context=nullcontext):
        made = []

        def step():
            if not made:
                own = deepcopy(model).to(dtype).to(memory_format=layout)
                made.extend((change(own), torch.optim.Adam(own.parameters(), 1e-3), own))
            stepped, optimiser, own = made
            for parameter, start in zip(own.parameters(), model.parameters(), strict=True):
                parameter.data.copy_(start)
            x, y = (each.to(dtype).contiguous(memory_format=layout) for each in (rainy, clean))
            with context():
                value = loss(stepped(x, stages) if stages else stepped(x), y)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            gradients = [each.grad.flatten() for each in own.parameters() if each.grad is not None]
            return value.detach(), torch.cat(gradients)

        return step

    def usual(x, y):
        return 1 - plain_ssim(x, y, window(x.dtype, "cpu"))

    def same(network):
        return network

    def fast():
        return fast_convolutions(torch.device("cpu"))

    last = torch.channels_last
    ours = SSIMLoss()
    return Case(
        f"training step, {network}{f', {stages} stages' if stages else ''}, {batch} patches of {PATCH}",
        {
            "unrain": contender(same, ours, layout=last, context=fast),  # as the trainer does it
            "unrain, accelerate": contender(accelerate, ours, layout=last),
            "eager": contender(same, usual),
            "eager channels-last": contender(same, usual, layout=last),
            "torch.compile channels-last": contender(compiled, usual, layout=last),
        },
        contender(same, usual, torch.float64),
        0,
        plain=contender(same, usual, layout=last),
        rounds=7,
        room=ROOM,
    )


NAMES = ("unrain", "unrain, accelerate", "eager", "eager channels-last", "torch.compile channels-last")


@pytest.mark.parametrize(
    ("name", "contender"), [(network, each) for network in NETWORKS for each in NAMES], ids=lambda part: part
)
def test_training(name, contender, compete, request):
    rounds = request.config.getoption("--rounds")

    def run_race(names):
        case = training(name)
        return race(replace(case, rounds=rounds) if rounds else case, names)

    compete("training", name, contender, run_race)
