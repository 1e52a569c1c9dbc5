"""Clips made of stills, what is drawn on them, and the pool that batches are taken from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unrain.engine.psnr import psnr
from unrain.engine.training.cache import pack
from unrain.engine.training.clips import ClipSource, Motion, clips_of, draw_motion, filmed
from unrain.engine.training.clutter import STREET, add_clutter
from unrain.engine.training.data import CleanSource
from unrain.engine.training.patterns import PATTERNS
from unrain.engine.training.pool import Pool, VideoBatches
from unrain.engine.training.rain import DISTRIBUTIONS, dry_and_rainy
from unrain.engine.training.setup import pictures_in


@pytest.fixture
def scenes(clean_folder, tmp_path):
    return CleanSource(pack(pictures_in(clean_folder), tmp_path / "cache"))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_clip_is_a_function_of_its_seed(scenes):
    source = clips_of(scenes, 3)
    rainy, clean = source.example(rng(4), 32)
    assert rainy.shape == clean.shape == (3, 3, 32, 32)
    again = source.example(rng(4), 32)
    assert torch.equal(rainy, again[0]) and torch.equal(clean, again[1])
    assert not torch.equal(rainy, source.example(rng(5), 32)[0])


def test_standing_clips_stand_and_moving_ones_move(scenes):
    still = ClipSource(scenes, 3, still=1.0, cut=0.0).moving(rng(), 32, dry=False)
    assert torch.equal(still[0], still[2])
    moving = ClipSource(scenes, 3, still=0.0, layered=0.0, cut=0.0).moving(rng(), 32, dry=False)
    assert (moving[0] - moving[2]).abs().mean() > 0.001


def test_dry_clips_are_left_as_they_are(scenes):
    rainy, clean = ClipSource(replace(scenes, dry=1.0), 3).example(rng(), 32)
    assert torch.equal(rainy, clean)
    rainy, clean = ClipSource(replace(scenes, dry=0.0), 3).example(rng(), 32)
    assert all((one != other).any() for one, other in zip(rainy, clean, strict=True))


def test_a_whole_pixel_of_pan_is_a_shift():
    scene = torch.rand(3, 64, 64)
    place, scale = np.array([0.0, 3.0]), np.ones(2)
    frames = filmed(scene, Motion(place, np.zeros(2), scale), 32)
    torch.testing.assert_close(frames[0], scene[:, 16:48, 16:48], atol=1e-4, rtol=0)
    torch.testing.assert_close(frames[1], scene[:, 16:48, 19:51], atol=1e-4, rtol=0)


def test_motion_stays_on_the_scene():
    for seed in range(200):
        motion = draw_motion(rng(seed), 8)
        assert np.abs(motion.right).max() <= 21 and np.abs(motion.down).max() <= 21


def test_the_wide_rain_is_a_third_heavy():
    """PSNR of the rain: a third and more below 16 dB, light rain still there, and all of it in range."""
    scene = torch.rand(3, 64, 64) * 0.2 + 0.3
    found = []
    for seed in range(150):
        clean, rainy = dry_and_rainy(scene, DISTRIBUTIONS["wide"](rng(seed)), seed)
        assert rainy.min() >= 0 and rainy.max() <= 1
        found.append(psnr(float((rainy - clean).square().mean().clamp_min(1e-6))))
    heavy = np.mean(np.array(found) < 16)
    assert 0.25 < heavy < 0.55
    assert np.mean(np.array(found) > 25) > 0.15


@pytest.mark.parametrize("kind", PATTERNS)
def test_patterns_draw_something_on_a_copy(kind):
    assert kind in STREET
    grey = np.full((64, 80, 3), 120, np.uint8)
    drawn = [add_clutter(grey, rng(seed), kind) for seed in range(12)]
    assert (grey == 120).all()
    assert all(one.shape == grey.shape and one.dtype == np.uint8 for one in drawn)
    assert sum((one != grey).any() for one in drawn) >= 9
    assert np.array_equal(drawn[0], add_clutter(grey, rng(0), kind))


def test_batches_are_clips_and_pictures_in_turns(scenes):
    batches = VideoBatches(clips_of(scenes, 3), 32, 4, 100, 0)
    assert batches[0][0].shape == (4, 3, 32, 32) and batches[1][0].shape == (1, 3, 3, 32, 32)


def test_a_pool_begun_later_gives_the_same_batches(scenes):
    """What a resumed run needs: the batch of a step does not depend on the steps that this process has seen."""
    pools = [Pool(scenes, 32, 4, 80, 1.0, 3) for _ in range(2)]
    for turn in range(40):
        seen = pools[0].draw(turn)
    fresh = pools[1].draw(39)
    assert torch.equal(seen[0], fresh[0]) and torch.equal(seen[1], fresh[1])


def test_a_pool_renews_itself_and_stays_small(scenes):
    pool = Pool(scenes, 32, 4, 70, 1.0, 3)
    for turn in range(60):
        pool.draw(turn)
    newest = 64 + 59
    assert len(pool.kept) <= 70 and min(pool.kept) >= newest - 70
