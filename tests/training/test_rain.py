"""The rain generator: repeatable, in range, ordered by severity, coherent over time, and physical where it says so."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from unrain.engine.evaluation.metrics import psnr_y
from unrain.engine.training.camera import BLENDINGS, Camera
from unrain.engine.training.rain import (
    DISTRIBUTIONS,
    RainParameters,
    add_rain,
    dry_and_rainy,
    rain_layer,
    rain_on_video,
    sample_parameters,
    time_lapse,
    to_array,
)
from unrain.engine.training.streaks import RainLayer, draw_streaks, fall, scatter_drops, terminal_speed


@pytest.fixture
def scene():
    rng = np.random.default_rng(3)
    return np.kron(rng.integers(0, 200, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_same_seed_same_rain(scene):
    parameters = sample_parameters(np.random.default_rng(5), 0.5)
    assert parameters == sample_parameters(np.random.default_rng(5), 0.5)
    first, again, other = (add_rain(scene, parameters, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_pictures_stay_in_range(severity):
    picture = torch.rand(3, 50, 70)
    for seed in range(12):
        rainy = add_rain(picture, sample_parameters(np.random.default_rng(seed), severity), seed)
        assert rainy.shape == picture.shape and rainy.dtype == torch.float32
        assert rainy.isfinite().all() and rainy.min() >= 0 and rainy.max() <= 1


def test_a_batch_gets_different_rain():
    batch = add_rain(torch.zeros(2, 3, 64, 64), RainParameters((RainLayer(light=0.05),)), 4)
    assert batch.shape == (2, 3, 64, 64)
    assert not torch.equal(batch[0], batch[1])


def test_more_severe_is_more_rain():
    means = []
    for severity in (0.0, 0.25, 0.5, 0.75, 1.0):
        layers = [
            rain_layer(sample_parameters(np.random.default_rng(n), severity), 96, 96, n).mean() for n in range(24)
        ]
        means.append(float(torch.stack(layers).mean()))
    assert all(later > 1.4 * earlier for earlier, later in pairwise(means)), means


def test_downpour_is_as_dense_as_rain100h():
    """Rain100H's inputs have 12 to 15 dB of luminance; the hardest tenth of the severities reaches there, over a scene
    of all brightnesses, as light that is added to bright places is cut off."""
    scene, found = torch.linspace(0.05, 0.95, 128).expand(3, 128, 128), []
    for n in range(24):
        parameters = replace(sample_parameters(np.random.default_rng(n), 0.95), camera=Camera())
        clean, rainy = dry_and_rainy(scene, parameters, n)
        found.append(psnr_y(to_array(rainy), to_array(clean)))
    assert 12 < np.median(found) < 15, found


def test_close_rain_has_thick_short_streaks_beside_the_rest():
    def share(name):
        layers = [DISTRIBUTIONS[name](np.random.default_rng(seed)).layers[0] for seed in range(300)]
        return sum(thick_and_short(layer) for layer in layers) / len(layers)

    def thick_and_short(layer):
        diameter, distance = layer.drop_mm * 1e-3, layer.near
        lengths_in_widths = float(terminal_speed(np.array(layer.drop_mm))) * layer.exposure_ms * 1e-3 / diameter
        return layer.focal * diameter / distance > 2 and lengths_in_widths < 15

    assert 0.08 < share("close") < 0.3
    assert share("wide") == share("physical") == 0


def test_layer_adds_the_light_it_says():
    layer = RainLayer(light=0.03, gusts=0.0)
    light = [float(rain_layer(RainParameters((layer,)), 256, 256, seed).mean()) for seed in range(8)]
    assert np.mean(light) == pytest.approx(0.03, rel=0.25)


def test_longer_exposure_draws_longer_streaks():
    def length(exposure):
        rng = np.random.default_rng(0)
        return float(scatter_drops(RainLayer(exposure_ms=exposure, light=0.05), 128, 128, rng).length.mean())

    assert length(20.0) == pytest.approx(2 * length(10.0), rel=0.15)


def test_streaks_lean_with_the_wind():
    layer = RainLayer(angle=30.0, angle_spread=0.0, exposure_ms=20.0, light=0.02)
    layers = torch.stack([rain_layer(RainParameters((layer,)), 96, 96, seed) for seed in range(6)]).numpy()
    spectrum = (np.abs(np.fft.fft2(layers - layers.mean((1, 2), keepdims=True))) ** 2).sum(0)
    together = np.fft.ifft2(spectrum).real
    # 12 pixels along the fall (down and to the right) the rain looks like itself, mirrored it does not.
    along, mirrored = together[10, 6], together[10, -6]
    assert along > 3 * abs(mirrored)


def test_a_drop_out_of_focus_is_dimmer_with_the_same_light():
    rng = np.random.default_rng(0)
    drops = scatter_drops(RainLayer(aperture=0.0, lens=0.5), 200, 200, rng)
    one = type(drops)(*(value[:1] if isinstance(value, np.ndarray) else value for value in drops))
    one = one._replace(x=np.array([100.0]), y=np.array([100.0]), length=np.array([20.0]))
    sharp = draw_streaks(one, 200, 200)
    soft = draw_streaks(one._replace(sigma=np.array([4.0])), 200, 200)
    assert soft.max() < 0.5 * sharp.max()
    assert float(soft.sum()) == pytest.approx(float(sharp.sum()), rel=0.02)


@pytest.mark.parametrize("blending", BLENDINGS)
def test_every_blending_rains(blending, scene):
    rainy = add_rain(scene, RainParameters((RainLayer(light=0.05),), Camera(blending=blending)), 1)
    assert rms(rainy, scene) > 2


def test_veil_noise_and_jpeg_change_the_dry_picture_too(scene):
    picture = torch.from_numpy(scene).permute(2, 0, 1).float() / 255
    camera = Camera(veil=0.2, noise=0.02, jpeg=60)
    clean, rainy = dry_and_rainy(picture, RainParameters((RainLayer(light=1e-9),), camera), 1)
    assert not torch.allclose(clean, picture, atol=0.02)
    assert torch.equal(clean, rainy)  # without drops the two are one picture: same mist, same noise, same JPEG


def test_drops_fall_and_come_back():
    drops = scatter_drops(RainLayer(angle=0.0, angle_spread=0.0, light=0.05), 100, 100, np.random.default_rng(0))
    later = fall(drops, 0.001, 100, 100)
    inside = drops.y + drops.velocity * 0.001 < 100 + drops.margin
    assert np.allclose((later.y - drops.y)[inside], (drops.velocity * 0.001)[inside])
    assert np.allclose(later.x[inside], drops.x[inside])
    far = fall(drops, 10.0, 100, 100)
    assert (far.y >= -drops.margin).all() and (far.y < 100 + drops.margin).all()
    assert (far.x >= -drops.margin).all() and (far.x < 100 + drops.margin).all()


def test_video_rain_moves_instead_of_flickering(scene):
    """Shifted by what the drops fall in one frame, the next frame's rain is like this one's; unrelated rain is not."""
    layer = RainLayer(angle=0.0, angle_spread=0.0, drop_spread=0.0, near=3.0, far=3.01, exposure_ms=8.0, light=0.03)
    parameters = RainParameters((layer,))
    seconds = 1 / 60
    speed = float(scatter_drops(layer, 10, 10, np.random.default_rng(0)).velocity[0])
    shift = round(speed * seconds)
    before, after = (rain_layer(parameters, 240, 160, 3, t).numpy() for t in (0.0, shift / speed))
    other = rain_layer(parameters, 240, 160, 4).numpy()

    def alike(a, b):
        return float(np.corrcoef(a[:-shift].ravel(), b[shift:].ravel())[0, 1])

    assert alike(before, after) > 0.95
    assert alike(before, other) < 0.2


def test_video_frames_are_repeatable(scene):
    parameters = sample_parameters(np.random.default_rng(1), 0.6)
    first, again = (list(rain_on_video([scene] * 3, parameters, 7)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


def test_time_lapse_keeps_the_scene_and_changes_the_rain(scene):
    picture = torch.from_numpy(scene).permute(2, 0, 1).float() / 255
    views = time_lapse(picture, 5, seed=2, severity=0.4)
    assert views.shape == (5, *picture.shape)
    assert torch.equal(views, time_lapse(picture, 5, seed=2, severity=0.4))
    middle = views.median(0).values
    assert rms(to_array(middle), scene) < min(rms(to_array(view), scene) for view in views)
