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
    assert states[0].hidden.std() > 0


@pytest.mark.parametrize("larger", [{"quarter_pairs": 2}, {"eighth_pairs": 3}, {"eighth": 24, "eighth_pairs": 2}])
def test_new_pairs_begin_as_nothing_and_learn(larger):
    small = {"half": 8, "quarter": 12, "eighth": 16, "hidden": 8, "eighth_pairs": 1}
    torch.manual_seed(0)
    before, after = build("wiper", **small).double(), build("wiper", **(small | larger)).double()
    grow(after, before)
    frame = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    (one, old), (other, new) = before.step(frame, None), after.step(frame, None)
    assert torch.allclose(one, other, rtol=0, atol=1e-12)
    assert torch.allclose(old.hidden[..., 1:-1, 1:-1], new.hidden[..., 1:-1, 1:-1], rtol=0, atol=1e-12)
    other.sum().backward()
    assert all(pair.second.weight.grad.any() for pair in (*after.deep, *after.body))


def test_a_larger_one_does_not_shrink():
    with pytest.raises(UnrainError, match="is not smaller than"):
        grow(build("wiper-s"), build("wiper"))
