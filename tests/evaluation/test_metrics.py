"""PSNR and SSIM against closed forms, MATLAB's values and plain two-dimensional convolutions."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.metrics import METRICS, metric, psnr_rgb, psnr_y, ssim_rgb, ssim_y
from unrain.engine.evaluation.planes import as_planes, automatic_factor, luma
from unrain.kernels import ssim


def picture(height, width, seed=0):
    """Smooth colours with some detail, uint8."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.zoom(rng.random((5, 6, 3)), (height / 5, width / 6, 1), order=1, grid_mode=True, mode="nearest")
    return np.clip(coarse * 220 + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


def noisy(image, sigma=14.0, seed=1):
    return np.clip(image + np.random.default_rng(seed).normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("rgb", "y"),
    [((0, 0, 0), 16), ((1, 1, 1), 235), ((1, 0, 0), 81.481), ((0, 1, 0), 144.553), ((0, 0, 1), 40.966)],
)
def test_luma_is_matlabs_rgb2ycbcr_on_doubles(rgb, y):
    plane = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    assert luma(plane).item() * 255 == pytest.approx(y, abs=1e-12)


@pytest.mark.parametrize("levels", [1, 5, 51])
def test_psnr_of_a_constant_offset_is_known(levels):
    clean = np.full((12, 14, 3), 100, np.uint8)
    expected = -20 * math.log10(levels / 255)
    assert psnr_rgb(clean + np.uint8(levels), clean) == pytest.approx(expected, abs=1e-10)
    # Y spans 219 of 255 levels, so a grey offset counts less there.
    assert psnr_y(clean + np.uint8(levels), clean) == pytest.approx(expected - 20 * math.log10(219 / 255), abs=1e-10)


def test_psnr_y_weighs_the_channels():
    clean = np.zeros((8, 8, 3), np.uint8)
    green = clean.copy()
    green[..., 1] = 51
    assert psnr_y(green, clean) == pytest.approx(-20 * math.log10(0.2 * 128.553 / 255), abs=1e-10)
    assert psnr_rgb(green, clean) == pytest.approx(-10 * math.log10(0.2**2 / 3), abs=1e-10)


@pytest.mark.parametrize("name", METRICS)
def test_equal_pictures_are_perfect(name):
    image = picture(64, 72)
    value = metric(name)(image, image)
    assert value == (math.inf if name.startswith("psnr") else pytest.approx(1, abs=1e-9))


@pytest.mark.parametrize("name", METRICS)
def test_uint8_float_array_and_tensor_agree(name):
    clean, rainy = picture(64, 71), noisy(picture(64, 71))
    function = metric(name)
    expected = function(rainy, clean)
    assert function(rainy / 255.0, clean / 255.0) == pytest.approx(expected, rel=1e-12)
    planes = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in (rainy, clean)]
    assert function(*planes) == pytest.approx(expected, rel=1e-12)
    assert function(*(plane[None] / 255 for plane in planes)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_a_batch_gives_the_mean_of_its_pictures(name):
    clean = [picture(48, 60, seed) for seed in (0, 5)]
    rainy = [noisy(image, sigma) for image, sigma in zip(clean, (5, 30), strict=True)]
    batch = [torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) for images in (rainy, clean)]
    function = metric(name)
    expected = np.mean([function(a, b) for a, b in zip(rainy, clean, strict=True)])
    assert function(*batch) == pytest.approx(expected, rel=1e-12)


def ssim_by_convolution(x, y):
    """Wang's ssim_index with two-dimensional windows."""
    factor = max(1, int(min(x.shape) / 256 + 0.5))
    if factor > 1:
        origin = -1 if factor % 2 == 0 else 0
        x, y = (
            ndimage.correlate(p, np.full((factor, factor), factor**-2), mode="reflect", origin=origin)[
                ::factor, ::factor
            ]
            for p in (x, y)
        )
    axis = np.exp(-(np.arange(-5, 6.0) ** 2) / 4.5)
    window = np.outer(axis, axis) / np.outer(axis, axis).sum()

    def mean(p):
        return signal.convolve2d(p, window, mode="valid")

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    return np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


# 383 is the last side that is not thinned, 384 the first that is; MATLAB rounds the half up.
@pytest.mark.parametrize("size", [(11, 11), (37, 52), (383, 390), (384, 401), (643, 650)])
def test_ssim_is_wangs(size):
    clean = picture(*size)
    rainy = noisy(clean)
    y = [image @ np.array([65.481, 128.553, 24.966]) / 255 + 16 for image in (rainy, clean)]
    assert ssim_y(rainy, clean) == pytest.approx(ssim_by_convolution(*y), abs=1e-10)
    channels = [
        ssim_by_convolution(rainy[..., c].astype(np.float64), clean[..., c].astype(np.float64)) for c in range(3)
    ]
    assert ssim_rgb(rainy, clean) == pytest.approx(np.mean(channels), abs=1e-10)


def test_ssim_is_the_fused_operations_valid_window():
    clean, rainy = (torch.rand(2, 3, 40, 52, dtype=torch.float64) for _ in range(2))
    y = [luma(image)[:, None] for image in (rainy, clean)]
    assert ssim_y(rainy, clean) == pytest.approx(ssim(*y, window="valid").item(), abs=1e-12)


def test_automatic_factor_rounds_halves_up():
    assert [automatic_factor(side, 2000) for side in (8, 256, 383, 384, 639, 640, 1080)] == [1, 1, 1, 2, 2, 3, 4]


def test_metrics_do_not_change_their_input():
    clean = torch.rand(3, 48, 48, dtype=torch.float64)
    rainy = torch.rand(3, 48, 48, dtype=torch.float64)
    kept = clean.clone(), rainy.clone()
    for function in METRICS.values():
        function(rainy, clean)
    assert torch.equal(clean, kept[0]) and torch.equal(rainy, kept[1])


@pytest.mark.parametrize(
    ("x", "clean", "message"),
    [
        (np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8), "30x20 and 31x20"),
        (torch.zeros(2, 3, 20, 20), torch.zeros(1, 3, 20, 20), "batch 2"),
        (np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8), r"\[H, W, 3\]"),
        (torch.zeros(20, 30, 3), torch.zeros(20, 30, 3), r"\[3, H, W\]"),
        (np.zeros((20, 20, 3), np.uint16), np.zeros((20, 20, 3), np.uint8), "uint8"),
        (np.full((20, 20, 3), 200.0), np.zeros((20, 20, 3)), "largest is 200"),
        (np.zeros((0, 20, 3), np.uint8), np.zeros((0, 20, 3), np.uint8), "empty"),
    ],
)
def test_unsuitable_pictures_are_refused_in_one_line(x, clean, message):
    with pytest.raises(UnrainError, match=message) as caught:
        psnr_y(x, clean)
    assert "\n" not in str(caught.value)


def test_pictures_too_small_for_a_window_are_refused():
    tiny = np.zeros((10, 40, 3), np.uint8)
    with pytest.raises(UnrainError, match="11x11"):
        ssim_y(tiny, tiny)
    with pytest.raises(UnrainError, match="41x41"):
        metric("vif")(tiny, tiny)


def test_a_name_without_a_metric_is_refused():
    with pytest.raises(UnrainError, match="unknown metric 'psnr'"):
        metric("psnr")


def test_not_a_number_stays_visible():
    broken = torch.full((3, 16, 16), math.nan)
    assert math.isnan(psnr_y(broken, torch.zeros(3, 16, 16)))
    assert as_planes(broken).isnan().all()
