"""Temporal flicker on clips whose answer is known."""

import math

import numpy as np
import pytest

from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.flicker import FlickerMeter

GREY = 219 / 255  # a grey level counts this much in BT.601 luminance


def flicker(clip, clean):
    meter = FlickerMeter()
    for frame, reference in zip(clip, clean, strict=True):
        meter.update(frame, reference)
    return meter.result()


def still(frames=4):
    scene = np.random.default_rng(0).integers(30, 200, (24, 32, 3), dtype=np.uint8)
    return [scene] * frames


def moving(frames=4):
    scene = np.random.default_rng(0).integers(30, 200, (24, 64, 3), dtype=np.uint8)
    return [np.ascontiguousarray(scene[:, 4 * t : 4 * t + 32]) for t in range(frames)]


@pytest.mark.parametrize("clean", [still(), moving()], ids=["still", "moving"])
def test_the_clean_clip_does_not_flicker(clean):
    assert flicker(clean, clean).change_error == 0


@pytest.mark.parametrize("clean", [still(), moving()], ids=["still", "moving"])
def test_a_constant_error_does_not_flicker(clean):
    assert flicker([frame + 20 for frame in clean], clean).change_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("clean", [still(5), moving(5)], ids=["still", "moving"])
def test_an_error_that_comes_and_goes_is_counted_whatever_moves(clean):
    clip = [frame + np.uint8(10 * (t % 2)) for t, frame in enumerate(clean)]
    assert flicker(clip, clean).change_error == pytest.approx(10 * GREY, abs=1e-9)


def test_still_change_looks_only_where_the_clean_clip_stands_still():
    clean = still(3)
    clean = [frame.copy() for frame in clean]
    for t, frame in enumerate(clean):
        frame[:, :16] = 40 + 30 * t  # the left half changes in earnest
    clip = [frame + np.uint8(6 * (t % 2)) for t, frame in enumerate(clean)]
    found = flicker(clip, clean)
    assert found.still_share == pytest.approx(0.5)
    assert found.still_change == pytest.approx(6 * GREY, abs=1e-9)
    assert flicker(clean, clean).still_change == 0


def test_small_noise_of_the_clean_clip_counts_as_still():
    clean = [np.full((16, 16, 3), level, np.uint8) for level in (100, 102, 100, 107)]
    # Steps of 2, 2 and 7 grey levels, 1.7, 1.7 and 6 in luminance.
    assert flicker(clean, clean).still_share == pytest.approx(2 / 3)


def test_nothing_still_and_nothing_to_compare():
    clean = [np.full((16, 16, 3), level, np.uint8) for level in (20, 120)]
    assert math.isnan(flicker(clean, clean).still_change)
    assert math.isnan(flicker(clean[:1], clean[:1]).change_error)


def test_a_clip_keeps_its_size():
    meter = FlickerMeter()
    meter.update(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(UnrainError, match="one size"):
        meter.update(np.zeros((16, 18, 3), np.uint8), np.zeros((16, 18, 3), np.uint8))
