"""Tiles: they cover a picture exactly once, have their halo, and do not show."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.images import read_image, write_image
from unrain.engine.runtime import tiling
from unrain.engine.runtime.backends import backend
from unrain.engine.runtime.engine import Engine
from unrain.engine.runtime.fidelity import sample


@pytest.mark.parametrize(("height", "width"), [(8, 8), (100, 64), (257, 500), (641, 333)])
@pytest.mark.parametrize(("tile", "halo"), [((64, 64), 0), ((64, 80), 32), ((96, 64), 40)])
def test_windows_cover_every_pixel_once_with_their_halo(height, width, tile, halo):
    covered = np.zeros((height, width), int)
    for window in tiling.windows(height, width, tile, halo):
        covered[window.place] += 1
        for whole, kept, place, side, longest in zip(
            (window.rows, window.columns), window.kept, window.place, (height, width), tile, strict=True
        ):
            assert whole.start % tiling.ALIGNMENT == 0 and 0 <= whole.start < whole.stop <= side
            assert kept.stop - kept.start == place.stop - place.start
            assert whole.start + kept.start == place.start
            assert whole.start == 0 or kept.start >= halo
            assert whole.stop == side or whole.stop - place.stop >= halo
            assert whole.stop - whole.start <= longest + 2 * halo + tiling.ALIGNMENT
    assert (covered == 1).all()


def test_with_the_whole_field_of_view_tiles_are_the_picture(monkeypatch):
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 2  # 5 pixels a stage
    x = torch.cat([sample(150, 203), sample(150, 203).flip(-1)])
    whole, tiles = (Engine(model, "fused", "fp32", "cpu", tile=tile)(x) for tile in (None, 64))
    assert (whole - tiles).abs().max() < 1e-6
    monkeypatch.setattr(tiling, "FARTHEST", 0)
    assert (whole - Engine(model, "fused", "fp32", "cpu", tile=64)(x)).abs().max() > 1e-4


def test_seams_of_trained_weights_do_not_show():
    x = sample(96, 320)
    whole, tiles = (Engine("srn", "fused", "fp32", "cpu", tile=tile)(x) for tile in (None, 64))
    assert (whole - x).abs().max() > 0 and (whole - tiles).abs().max() < 1 / 255


def computed(plan, height, width):
    """Pixels of every window, and of the largest."""
    sizes = [
        (each.rows.stop - each.rows.start) * (each.columns.stop - each.columns.start)
        for each in tiling.windows(height, width, plan.tile, plan.halo)
    ]
    return sum(sizes), max(sizes)


def runner_of(name, backend_name):
    model = unrain.build(name).eval()
    return model, backend(backend_name).make(model, "fp32", torch.device("cpu"), None)


def test_max_memory_decides_when_to_cut():
    def planned(backend_name, height, width, tile="auto", memory=None):
        return tiling.plan(tiling.needs(*runner_of("srn", backend_name)), height, width, tile, memory)

    assert planned("eager", 256, 256).tile is None
    assert planned("eager", 2160, 3840, tile=None).tile is None
    assert planned("fused", 1000, 1000).tile is None
    with pytest.raises(UnrainError, match="max_memory of 1000"):
        planned("eager", 256, 256, memory=1000)


@pytest.mark.parametrize("name", ["srn", "brn-gru", "mlmcn-n1"])
def test_what_the_plan_says_is_what_a_run_takes(name):
    _, ours = runner_of(name, "fused")
    ours.run(sample(96, 128))
    [context] = ours.core._contexts._idle
    assert context.memory.numel() == ours.bytes(96, 128)


@pytest.mark.parametrize("name", ["srn", "srn-gru", "brn", "brn-gru", "stagewise"])
def test_windows_fit_into_memory_and_compute_little_twice(name):
    cases = itertools.product(
        ("eager", "fused"), ((2160, 3840), (3840, 2160), (5000, 900), (300, 9000)), (1 << 28, 1 << 30)
    )
    known = {each: tiling.needs(*runner_of(name, each)) for each in ("eager", "fused")}
    for backend_name, size, memory in cases:
        plan = tiling.plan(known[backend_name], *size, "auto", memory)
        total, largest = computed(plan, *size)
        each = known[backend_name].bytes_per_pixel
        assert largest * each <= memory
        # Square windows of that memory, as many as cover the picture, are no better.
        side = int((memory / each) ** 0.5) // 16 * 16
        if side > 2 * plan.halo + tiling.SMALLEST:
            square = plan._replace(tile=(side - 2 * plan.halo,) * 2)
            assert total <= computed(square, *size)[0]


def test_a_network_that_sees_everything_says_what_tiles_do():
    engine = Engine(unrain.build("timelapse").eval(), "eager", "fp32", "cpu", tile=64)
    engine(sample(100, 100))
    told = engine.explain()
    assert told["tile"] == [64, 64] and any("averages over each tile" in note for note in told["notes"])


def test_frames_are_cut_too():
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 1
    frame = (sample(90, 100)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    whole, tiles = (Engine(model, "eager", "fp32", "cpu", tile=tile)(frame) for tile in (None, 64))
    assert np.array_equal(whole, tiles)


@pytest.mark.parametrize("tile", ["auto", 64, None])
def test_a_batch_keeps_to_max_memory(tile, monkeypatch):
    """Two of five pictures fit; one alone would not be cut."""
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 1
    one = tiling.UNKNOWN.bytes_per_pixel * 40 * 48
    monkeypatch.setattr(tiling, "needs", lambda *_: tiling.UNKNOWN)
    x = torch.rand(5, 3, 40, 48)
    ran = []
    expected = Engine(model, "eager", "fp32", "cpu", tile=None)(x)
    engine = Engine(model, "eager", "fp32", "cpu", tile=tile, max_memory=int(2.5 * one))
    runner = engine._selection.fixed.runner
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda part: ran.append(len(part)) or run(part))
    assert (engine(x) - expected).abs().max() < 1e-6 and ran == [2, 2, 1]
    assert engine.explain()["tile"] is None


def test_a_batch_is_not_parted_without_need():
    known = tiling.needs(*runner_of("srn", "eager"))
    assert tiling.plan(known, 64, 64, "auto", None).pictures > 90
    assert 1 <= tiling.plan(known, 512, 512, "auto", None).pictures <= 2
    assert tiling.plan(known, 4096, 4096, None, None).pictures > 1000


@pytest.mark.parametrize("tile", [3, 0, "small"])
def test_a_tile_that_makes_no_sense_is_refused(tile):
    with pytest.raises(UnrainError, match="tile must be"):
        Engine(unrain.build("srn"), tile=tile)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_large_picture_in_little_memory(tmp_path, precision):
    """As a user runs it: everything that the process takes counts."""
    frame = np.tile((sample(240, 240)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8), (9, 16, 1))
    assert frame.shape == (2160, 3840, 3)
    write_image(tmp_path / "in.png", frame)
    # A peak of one stage is that of all.
    words = ["run", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "-n", "srn", "-T", "1"]
    words += ["--precision", precision]
    code = f"""
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "unrain.cli.main", *{words!r}], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(told.splitlines()[-1]) < 1.5e9
    assert read_image(tmp_path / "out.png").shape == frame.shape
