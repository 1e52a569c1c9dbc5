"""Tiles: they cover a picture exactly once, have their halo, and do not show."""

import resource

import numpy as np
import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime import tiling
from unrain.engine.runtime.engine import Engine
from unrain.engine.runtime.fidelity import sample


@pytest.mark.parametrize(("height", "width"), [(8, 8), (100, 64), (257, 500), (641, 333)])
@pytest.mark.parametrize(("tile", "halo"), [(64, 0), (64, 32), (96, 40)])
def test_windows_cover_every_pixel_once_with_their_halo(height, width, tile, halo):
    covered = np.zeros((height, width), int)
    for window in tiling.windows(height, width, tile, halo):
        covered[window.place] += 1
        for whole, kept, place, side in zip(
            (window.rows, window.columns), window.kept, window.place, (height, width), strict=True
        ):
            assert whole.start % tiling.ALIGNMENT == 0 and 0 <= whole.start < whole.stop <= side
            assert kept.stop - kept.start == place.stop - place.start
            assert whole.start + kept.start == place.start
            assert whole.start == 0 or kept.start >= halo
            assert whole.stop == side or whole.stop - place.stop >= halo
            assert whole.stop - whole.start <= tile + 2 * halo + tiling.ALIGNMENT
    assert (covered == 1).all()


def test_with_the_whole_field_of_view_tiles_are_the_picture(monkeypatch):
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 2  # 5 pixels a stage
    monkeypatch.setitem(tiling.HALOS, "SRN", 10)
    x = torch.cat([sample(150, 203), sample(150, 203).flip(-1)])
    whole, tiles = (Engine(model, "fused", "fp32", "cpu", tile=tile)(x) for tile in (None, 64))
    assert (whole - tiles).abs().max() < 1e-6
    monkeypatch.setitem(tiling.HALOS, "SRN", 0)
    assert (whole - Engine(model, "fused", "fp32", "cpu", tile=64)(x)).abs().max() > 1e-4


def test_seams_of_trained_weights_do_not_show():
    x = sample(96, 320)
    whole, tiles = (Engine("srn", "fused", "fp32", "cpu", tile=tile)(x) for tile in (None, 64))
    assert (whole - x).abs().max() > 0 and (whole - tiles).abs().max() < 1 / 255


def test_max_memory_decides_when_to_cut():
    model = unrain.build("srn")
    assert tiling.plan(model, "eager", 256, 256, "auto", None).tile is None
    assert tiling.plan(model, "eager", 2160, 3840, None, None).tile is None
    cut = tiling.plan(model, "eager", 2160, 3840, "auto", None).tile
    smaller = tiling.plan(model, "eager", 2160, 3840, "auto", tiling.MEMORY // 4).tile
    assert cut > smaller >= tiling.SMALLEST
    assert tiling.plan(model, "fused", 2160, 3840, "auto", None).tile > cut
    with pytest.raises(UnrainError, match="max_memory of 1000"):
        tiling.plan(model, "eager", 256, 256, "auto", 1000)


def test_a_network_that_sees_everything_says_what_tiles_do():
    engine = Engine(unrain.build("timelapse").eval(), "eager", "fp32", "cpu", tile=64)
    engine(sample(100, 100))
    told = engine.explain()
    assert told["tile"] == 64 and any("instance norm averages" in note for note in told["notes"])


def test_frames_are_cut_too():
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 1
    frame = (sample(90, 100)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    whole, tiles = (Engine(model, "eager", "fp32", "cpu", tile=tile)(frame) for tile in (None, 64))
    assert np.array_equal(whole, tiles)


@pytest.mark.parametrize("tile", [3, 0, "small"])
def test_a_tile_that_makes_no_sense_is_refused(tile):
    with pytest.raises(UnrainError, match="tile must be"):
        Engine(unrain.build("srn"), tile=tile)


@pytest.mark.slow
def test_a_large_picture_in_little_memory():
    model = unrain.build("srn").eval()
    frame = np.tile((sample(240, 240)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8), (9, 16, 1))
    assert frame.shape == (2160, 3840, 3)
    Engine(model, "fused", "fp32", "cpu", stages=1)(frame)  # a peak of one stage is that of all
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 1.5e9
