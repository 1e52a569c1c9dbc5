"""The loop: it learns, it repeats, it resumes to the bit, and it stops with one line when something is wrong."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from unrain.engine.errors import UnrainError
from unrain.engine.models import load, models
from unrain.engine.training.objectives import log_error
from unrain.engine.training.recipes import Recipe, Schedule, rate_at, recipe_for
from unrain.engine.training.setup import prepare
from unrain.engine.training.trainer import Trainer, choose_precision

TINY = {"batch": 2, "patch": 32, "steps": 4}
QUICK = ("srn", "stagewise", "timelapse")


def started(model, data, out, resume=False, seed=0, **changes):
    run = prepare(model, data, out, changes={**TINY, **changes}, cache=out.parent / "cache", hold_out=1, resume=resume)
    run.measure_every, run.precision, run.seed = 2, "fp32", seed
    return Trainer(run)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("model", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in models()])
def test_the_loss_falls(model, clean_folder, tmp_path):
    """Two steps on one batch: the second loss is lower."""
    rate = {"timelapse": 5e-4, "stagewise": 1e-3}.get(model, 2e-4)
    trainer = started(model, clean_folder, tmp_path / "run", rate=rate, schedule=Schedule("cosine"), ema=0.0)
    first, second = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    before = float(trainer.update(first, second))
    assert float(trainer.update(first, second)) < before


@pytest.mark.parametrize("model", QUICK)
def test_a_run_leaves_weights_a_log_and_a_state(model, clean_folder, tmp_path):
    out = tmp_path / "run"
    trainer = started(model, clean_folder, out)
    trainer.train()
    assert load(out / "last.safetensors").name == model
    assert load(out / "best.safetensors").card["step"] in (2, 4)
    with (out / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]
    assert not list(out.glob("*.part"))
    # What is kept is the average, not the last step's weights.
    assert same_weights(load(out / "last.safetensors"), trainer.average)
    assert not same_weights(trainer.average, trainer.model)


@pytest.mark.parametrize("model", QUICK)
def test_resumed_is_as_uninterrupted(model, clean_folder, tmp_path):
    whole = started(model, clean_folder, tmp_path / "whole")
    whole.train()
    half = started(model, clean_folder, tmp_path / "half")
    half.run.minutes = 0.0  # stops after the first step
    half.train()
    assert half.step == 1
    torch.manual_seed(99)  # nothing of this process may matter
    again = started(model, clean_folder, tmp_path / "half", resume=True)
    again.resume(tmp_path / "half" / "last.pt")
    again.train()
    assert again.step == whole.step == 4
    assert same_weights(again.model, whole.model) and same_weights(again.average, whole.average)
    moments = [tree_leaves(t.optimiser.state_dict()["state"]) for t in (again, whole)]
    assert moments[0] and all(torch.equal(*map(torch.as_tensor, pair)) for pair in zip(*moments, strict=True))


def test_the_same_command_gives_the_same_weights(clean_folder, tmp_path):
    runs = [started("srn", clean_folder, tmp_path / name, seed=5) for name in ("one", "other")]
    for trainer in runs:
        trainer.train()
    assert same_weights(runs[0].model, runs[1].model)
    assert not same_weights(runs[0].model, started("srn", clean_folder, tmp_path / "third", seed=6).model)


def test_begins_from_given_weights(clean_folder, tmp_path):
    started("srn", clean_folder, tmp_path / "first").train()
    given = load(tmp_path / "first" / "last.safetensors")
    run = started("srn", clean_folder, tmp_path / "second", seed=5).run
    run.init = tmp_path / "first" / "last.safetensors"
    assert same_weights(Trainer(run).model, given)
    assert same_weights(Trainer(run).average, given)
    run.model = "brn"
    with pytest.raises(UnrainError, match="holds weights of srn, not of brn"):
        Trainer(run)


def test_log_error_counts_every_decibel_alike_until_it_is_good_enough():
    clean = torch.zeros(1, 3, 8, 8)
    losses = [float(log_error(torch.full_like(clean, 10 ** (-dB / 20)), clean)) for dB in (10, 20, 30, 70)]
    assert losses[0] - losses[1] == pytest.approx(1, abs=0.01)
    assert losses[1] - losses[2] == pytest.approx(1, abs=0.05)
    assert 0 < losses[3] < 0.001
    two = torch.cat([torch.full_like(clean, 10**-0.5), torch.full_like(clean, 10**-1.5)])
    assert float(log_error(two, torch.zeros_like(two))) == pytest.approx((losses[0] + losses[2]) / 2)


def test_timelapse_updates_its_memory(clean_folder, tmp_path):
    trainer = started("timelapse", clean_folder, tmp_path / "run")
    before = trainer.model.items.clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.items)
    assert torch.allclose(trainer.model.items.norm(dim=1), torch.ones(len(before)), atol=1e-5)
    assert torch.equal(trainer.model.items, load(tmp_path / "run" / "last.safetensors").items)


def test_a_loss_that_is_not_a_number_stops_at_its_step(clean_folder, tmp_path):
    trainer = started("srn", clean_folder, tmp_path / "run")
    trainer.step = 3
    with torch.no_grad():
        next(trainer.model.parameters())[0] = float("nan")
    with pytest.raises(UnrainError, match="the loss is nan at step 3"):
        trainer.update(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))


def test_a_state_of_another_run_is_refused(clean_folder, tmp_path):
    started("srn", clean_folder, tmp_path / "run").train()
    with pytest.raises(UnrainError, match="already holds a run"):
        started("srn", clean_folder, tmp_path / "run")
    with pytest.raises(UnrainError, match="seed 0, not 1"):
        started("srn", clean_folder, tmp_path / "run", resume=True, seed=1).resume(tmp_path / "run" / "last.pt")
    with pytest.raises(UnrainError, match="model 'srn', not 'stagewise'"):
        started("stagewise", clean_folder, tmp_path / "run", resume=True).resume(tmp_path / "run" / "last.pt")
    (tmp_path / "run" / "last.pt").write_bytes(b"torn")
    with pytest.raises(UnrainError, match="cannot be read as the state of a run"):
        started("srn", clean_folder, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed(clean_folder, tmp_path):
    """The real command, killed hard while it runs, gives the weights of the run that was left alone."""

    def command(out, *more):
        words = ["train", "stagewise", "--data", clean_folder, "-o", tmp_path / out, "--steps", "60", "--batch", "2"]
        words += ["--patch", "32", "--measure-every", "5", "--workers", "1", "--threads", "1", *more]
        return subprocess.Popen([sys.executable, "-m", "unrain.cli.main", *map(str, words)])

    assert command("whole").wait(500) == 0
    process = command("killed")
    while not (tmp_path / "killed" / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert command("killed", "--resume").wait(500) == 0
    assert same_weights(load(tmp_path / "killed" / "last.safetensors"), load(tmp_path / "whole" / "last.safetensors"))


def test_every_model_has_its_recipes():
    for model in models():
        ours = model.startswith("wiper")
        for kind in ("short", "video" if ours else "paper"):
            recipe = recipe_for(model, kind)
            assert (recipe.objective == "timelapse") == (model == "timelapse")
            assert bool(recipe.frames) == (kind == "video")
        with pytest.raises(UnrainError, match=f"{model} has no recipe .*; it has (short and video|paper and short)"):
            recipe_for(model, "paper" if ours else "video")
    with pytest.raises(UnrainError, match="no recipe is called"):
        recipe_for("srn", "quick")


def test_learning_rates_of_the_papers():
    srn = recipe_for("srn", "paper")
    epoch = srn.steps // 100
    rates = [rate_at(srn, epoch * n) for n in (0, 29, 30, 50, 80)]
    assert rates == pytest.approx([1e-3, 1e-3, 2e-4, 4e-5, 8e-6])
    mspfn = recipe_for("mspfn", "paper")
    assert rate_at(mspfn, 19_999) == 2e-4 and rate_at(mspfn, 20_000) == 1e-4
    assert rate_at(mspfn, mspfn.steps) == 1e-6
    timelapse = recipe_for("timelapse", "paper")
    assert rate_at(timelapse, 0) == 2e-4 and rate_at(timelapse, timelapse.steps) == pytest.approx(0, abs=1e-12)


def test_the_linear_schedule_rises_stays_and_falls():
    recipe = replace(recipe_for("srn"), steps=1000, rate=1.0, schedule=Schedule(warmup=100, fall=0.3))
    rates = [rate_at(recipe, step) for step in range(1000)]
    assert rates[0] == 0.01 and rates[99:701] == [1.0] * 602 and rates[850] == 0.5 and 0 < rates[999] < 0.01


def test_stages_grow_with_the_step():
    recipe = Recipe("l1-ssim", 10, 1, 32, 1e-3, Schedule(), stages=((0, 2), (5, 4)))
    assert [recipe.stages_at(step) for step in (0, 4, 5, 9)] == [2, 2, 4, 4]
    assert replace(recipe, stages=()).stages_at(3) is None


def test_a_timid_start_leaves_the_picture_nearly_as_it_was(clean_folder, tmp_path):
    assert recipe_for("mlmcn-n1").timid < 1
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        timid, bold = (
            started("mlmcn-n1", clean_folder, tmp_path / "run", timid=factor).model(x) - x for factor in (0.02, 1.0)
        )
    assert 0 < timid.abs().mean() < 0.05 * bold.abs().mean()


def test_rain_is_chosen_by_name_or_refused(clean_folder, tmp_path):
    assert started("srn", clean_folder, tmp_path / "run", rain="wide").run.source.rain == "wide"
    with pytest.raises(UnrainError, match="no rain is called 'purple'; choose physical, wide, close"):
        started("srn", clean_folder, tmp_path / "other", rain="purple")


def test_precision_is_chosen_or_refused():
    assert choose_precision("bf16", torch.device("cpu")) == torch.bfloat16
    assert choose_precision("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)
    with pytest.raises(UnrainError, match="no precision"):
        choose_precision("fp8", torch.device("cpu"))


_ONE_OF_TWO = """
import sys, torch
from pathlib import Path
from unrain.engine.training.distributed import join, leave
from unrain.engine.training.setup import prepare
from unrain.engine.training.trainer import Trainer
data, out = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
changes = {"steps": 4, "batch": 2, "patch": 32}
run = prepare("srn", data, out, changes=changes, cache=out.parent / "cache", hold_out=1)
run.measure_every, run.precision = 4, "fp32"
Trainer(run, join()).train()
leave()
"""


def test_two_processes_are_one_with_the_doubled_batch(clean_folder, tmp_path):
    one = started("srn", clean_folder, tmp_path / "one", batch=4)
    fresh = {key: value.clone() for key, value in one.model.state_dict().items()}
    one.train()
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    words = [sys.executable, "-c", _ONE_OF_TWO, str(clean_folder), str(tmp_path / "two")]
    ranks = [{**environment, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    processes = [subprocess.Popen(words, env=rank) for rank in ranks]
    assert [process.wait(300) for process in processes] == [0, 0]
    both = torch.load(tmp_path / "two" / "last.pt", weights_only=True)["weights"]
    moved = max(float((value - fresh[key]).abs().max()) for key, value in one.model.state_dict().items())
    apart = max(float((value - both[key]).abs().max()) for key, value in one.model.state_dict().items())
    assert apart < 0.01 * moved, (apart, moved)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
