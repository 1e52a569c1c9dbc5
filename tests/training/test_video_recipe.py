"""The recipe for networks with a state: clips and pictures in turns, Muon, a rate that goes by the clock."""

from dataclasses import replace

import pytest
import torch

from unrain.engine.errors import UnrainError
from unrain.engine.models import build, load
from unrain.engine.training.muon import optimiser_of, orthogonal
from unrain.engine.training.objectives import Objective
from unrain.engine.training.recipes import rate_at, recipe_for
from unrain.engine.training.setup import prepare
from unrain.engine.training.trainer import Trainer

TINY = {"batch": 2, "patch": 32, "steps": 4, "frames": 2, "pool": 80}


def started(data, out, resume=False):
    run = prepare("wiper-s", data, out, "video", changes=TINY, cache=out.parent / "cache", hold_out=1, resume=resume)
    run.measure_every, run.precision = 2, "fp32"
    return Trainer(run)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_resumed_run_is_as_an_uninterrupted_one(clean_folder, tmp_path):
    whole = started(clean_folder, tmp_path / "whole")
    whole.train()
    half = started(clean_folder, tmp_path / "half")
    half.run.recipe = replace(half.run.recipe, steps=4)
    half.run.minutes = 1e-9  # stops after the first step, whose rate came before any time was spent
    half.train()
    assert half.step == 1
    again = started(clean_folder, tmp_path / "half", resume=True)
    again.resume(tmp_path / "half" / "last.pt")
    again.spent = 0.0
    again.train()
    assert again.step == whole.step == 4
    assert same_weights(again.model, whole.model) and same_weights(again.average, whole.average)
    assert load(tmp_path / "half" / "last.safetensors").name == "wiper-s"


def test_the_clock_ends_the_rate_where_it_comes_first():
    recipe = replace(recipe_for("wiper", "video"), rate=1.0)
    level, fall = recipe.steps // 10, recipe.schedule.fall
    assert rate_at(recipe, level) == rate_at(recipe, level, 1 - fall) == 1.0
    assert rate_at(recipe, level, 1 - fall / 2) == pytest.approx(0.5)
    assert rate_at(recipe, level, 1.0) == 0
    assert rate_at(recipe, recipe.steps, 0.1) == 0
    assert rate_at(recipe, 0, 0.0) == pytest.approx(1 / recipe.schedule.warmup)


def test_the_loss_reaches_the_first_frame_through_the_state():
    """With the picture of the last frame alone in the loss, the layers that make the state still learn."""
    model = build("wiper-s")
    objective = Objective(model, recipe_for("wiper", "video"))
    clip = torch.rand(1, 3, 3, 32, 32)
    objective(clip, clip * 0.8, None, torch.float32).backward()
    assert model.remember.weight.grad.abs().max() > 0
    still = Objective(model, recipe_for("wiper", "video"))(clip[:, 0], clip[:, 0] * 0.8, None, torch.float32)
    model.zero_grad()
    still.backward()
    assert model.remember.weight.grad is None or not model.remember.weight.grad.any()


def test_a_network_without_a_state_is_refused():
    with pytest.raises(UnrainError, match="'video' needs a network with a state"):
        Objective(build("srn"), recipe_for("wiper", "video"))(*torch.rand(2, 1, 3, 32, 32), None, torch.float32)


@pytest.mark.parametrize("shape", [(32, 288), (64, 16), (16, 16)])
def test_orthogonal_keeps_directions_and_evens_them_out(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    evened = left.T @ orthogonal(matrix) @ right.T
    values = evened.diagonal()
    assert values.min() > 0.3 and values.max() < 1.3
    assert (evened - torch.diag(values)).abs().max() < 1e-9


def test_muon_takes_the_inner_convolutions_and_adam_the_rest():
    model = build("wiper-s")
    recipe = recipe_for("wiper", "video")
    inner, outer = (set(map(id, group["params"])) for group in optimiser_of(model, recipe).param_groups)
    assert id(model.merge.weight) in inner and id(model.enter.weight) in inner
    assert id(model.leave.weight) in outer and id(model.merge.bias) in outer
    assert len(inner | outer) == len(list(model.parameters()))
    with pytest.raises(UnrainError, match="no optimiser is called 'sgd'"):
        optimiser_of(model, replace(recipe, optimiser="sgd"))


def test_adam_beside_muon_is_torchs():
    one, other = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1)
    other.load_state_dict(one.state_dict())
    ours = optimiser_of(one, recipe_for("wiper", "video"))
    theirs = torch.optim.Adam(other.parameters(), recipe_for("wiper", "video").rate)
    for seed in range(4):
        x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        for model, optimiser in ((one, ours), (other, theirs)):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(one.weight, other.weight)
