"""A larger wiper that begins as a smaller one."""

import pytest
import torch

from unrain.engine.errors import UnrainError
from unrain.engine.models import build
from unrain.engine.training.grow import grow


@pytest.mark.parametrize(
    "larger", [{"eighth": 24}, {"hidden": 12}, {"half": 12, "quarter": 20}, {"half": 12, "quarter": 24, "hidden": 16}]
)
def test_wider_begins_as_what_it_was_grown_from(larger):
    small = {"half": 8, "quarter": 12, "eighth": 16, "hidden": 8, "eighth_pairs": 1}
    torch.manual_seed(0)
    before, after = build("wiper", **small).double(), build("wiper", **(small | larger)).double()
    grow(after, before)
    states = [None, None]
    for frame in torch.rand(4, 1, 3, 32, 40, dtype=torch.float64):
        (one, states[0]), (other, states[1]) = before.step(frame, states[0]), after.step(frame, states[1])
        assert torch.allclose(one, other, rtol=0, atol=1e-12)
    assert states[0].hidden.std() > 0 and after.deep[0].first.weight.all()


def test_a_new_pair_begins_as_nothing_and_learns():
    torch.manual_seed(0)
    small = {"half": 8, "quarter": 12, "eighth": 16, "hidden": 8, "eighth_pairs": 1}
    after = build("wiper", **(small | {"quarter_pairs": 1}))
    grow(after, build("wiper", **small))
    pair, x = after.body[0], torch.rand(1, 12, 8, 8)
    assert torch.equal(pair(x), x)
    after(torch.rand(1, 3, 32, 32)).sum().backward()
    assert pair.second.weight.grad.any()


def test_a_larger_one_does_not_shrink():
    with pytest.raises(UnrainError, match="is not smaller than"):
        grow(build("wiper-s"), build("wiper"))
