"""FSIM and VIF against plain transcriptions of their definitions, and another library's stored values."""

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from unrain.engine.evaluation.fsim import fsim, fsimc, phase_congruency
from unrain.engine.evaluation.metrics import vif


def scene(height, width, seed=0):
    """Edges, waves and noise, uint8: what phase congruency and the gradient answer to."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([90 + 60 * np.sin(x / 7 + c) * np.cos(y / (9 + 2 * c)) for c in range(3)], axis=-1)
    image[height // 3 :, width // 2 :] += (60, -30, 20)
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def rained(image, seed=1):
    """Slanted streaks added to a picture."""
    rng = np.random.default_rng(seed)
    drops = (rng.random(image.shape[:2]) > 0.985) * 160.0
    streaks = ndimage.convolve(drops, np.eye(9) / 3, mode="nearest")
    return np.clip(image + streaks[..., None], 0, 255).astype(np.uint8)


def kovesi(image):
    """Phase congruency one orientation and one scale at a time."""
    rows, cols = image.shape

    def axis(n):
        return np.arange(-(n // 2), n - n // 2) / (n - 1 if n % 2 else n)

    x, y = np.meshgrid(axis(cols), axis(rows))
    radius = np.fft.ifftshift(np.sqrt(x**2 + y**2))
    theta = np.fft.ifftshift(np.arctan2(-y, x))
    lowpass = 1 / (1 + (radius / 0.45) ** 30)
    radius[0, 0] = 1
    spectrum = np.fft.fft2(image)
    energy_all, amplitude_all = np.zeros(image.shape), np.zeros(image.shape)
    for o in range(4):
        angle = o * np.pi / 4
        ds = np.sin(theta) * np.cos(angle) - np.cos(theta) * np.sin(angle)
        dc = np.cos(theta) * np.cos(angle) + np.sin(theta) * np.sin(angle)
        spread = np.exp(-(np.arctan2(ds, dc) ** 2) / (2 * (np.pi / 4 / 1.2) ** 2))
        responses, impulses = [], []
        for s in range(4):
            band = np.exp(-(np.log(radius * 6 * 2**s) ** 2) / (2 * np.log(0.55) ** 2)) * lowpass
            band[0, 0] = 0
            responses.append(np.fft.ifft2(spectrum * band * spread))
            impulses.append(np.fft.ifft2(band * spread).real * np.sqrt(rows * cols))
            if s == 0:
                smallest = ((band * spread) ** 2).sum()
        total = sum(responses)
        even, odd = total.real / (abs(total) + 1e-4), total.imag / (abs(total) + 1e-4)
        energy = sum(r.real * even + r.imag * odd - abs(r.real * odd - r.imag * even) for r in responses)
        noise = np.median(abs(responses[0]) ** 2) / np.log(2) / smallest
        squares = sum((a**2).sum() for a in impulses)
        products = sum((impulses[i] * impulses[j]).sum() for i in range(4) for j in range(i + 1, 4))
        tau = np.sqrt((2 * noise * squares + 4 * noise * products) / 2)
        threshold = (tau * np.sqrt(np.pi / 2) + 2 * np.sqrt((2 - np.pi / 2) * tau**2)) / 1.7
        energy_all += np.maximum(energy - threshold, 0)
        amplitude_all += sum(abs(r) for r in responses)
    return energy_all / amplitude_all


def fsim_by_definition(x, y):
    factor = max(1, int(min(x.shape[:2]) / 256 + 0.5))
    yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    mean = np.full((factor, factor), factor**-2)

    def axes(image):
        planes = np.moveaxis(image.astype(np.float64) @ yiq.T, -1, 0)
        # MATLAB's conv2 'same' keeps the centre of the full convolution, ceil((F - 1) / 2) in.
        start = -(-(factor - 1) // 2)
        full = [signal.convolve2d(p, mean) for p in planes]
        return [
            f[start : start + p.shape[0] : factor, start : start + p.shape[1] : factor]
            for f, p in zip(full, planes, strict=True)
        ]

    def gradient(plane):
        dx = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
        return np.hypot(*(signal.convolve2d(plane, k, mode="same") for k in (dx, dx.T)))

    def similar(a, b, c):
        return (2 * a * b + c) / (a**2 + b**2 + c)

    (y1, i1, q1), (y2, i2, q2) = axes(x), axes(y)
    pc1, pc2 = kovesi(y1), kovesi(y2)
    weight = np.maximum(pc1, pc2)
    score = similar(pc1, pc2, 0.85) * similar(gradient(y1), gradient(y2), 160)
    chroma = ((similar(i1, i2, 200) * similar(q1, q2, 200)).astype(complex) ** 0.03).real
    return (score * weight).sum() / weight.sum(), (score * chroma * weight).sum() / weight.sum()


# Even and odd sides; 390 is thinned by 2 with a last block over the edge, 641 by 3.
@pytest.mark.parametrize("size", [(64, 80), (51, 77), (391, 402), (641, 646)])
def test_fsim_is_zhangs(size):
    clean = scene(*size)
    rainy = rained(clean)
    luminance, colour = fsim_by_definition(rainy, clean)
    assert fsim(rainy, clean) == pytest.approx(luminance, abs=1e-9)
    assert fsimc(rainy, clean) == pytest.approx(colour, abs=1e-9)
    assert 0.3 < fsimc(rainy, clean) < fsim(rainy, clean) < 1


def test_fsimc_takes_the_real_part_for_opposite_hues():
    red = np.zeros((48, 48, 3), np.uint8)
    red[..., 0] = 255
    red[20:, 20:] = 90
    cyan = 255 - red
    assert fsimc(red, cyan) == pytest.approx(fsim_by_definition(red, cyan)[1], abs=1e-9)


def test_phase_congruency_is_kovesis_and_blind_to_contrast():
    image = scene(60, 73)[..., 1].astype(np.float64)
    planes = torch.from_numpy(np.stack([image, image * 2]))
    found = phase_congruency(planes).numpy()
    assert np.abs(found[0] - kovesi(image)).max() < 1e-10
    assert np.abs(found[0] - found[1]).max() < 1e-3


def test_flat_pictures_have_equal_features():
    grey, white = np.full((48, 48, 3), 100, np.uint8), np.full((48, 48, 3), 200, np.uint8)
    assert fsim(grey, grey) == 1
    assert np.isfinite(fsim(grey, white))


def vif_by_definition(x, y, noise=2.0):
    """vifp_mscale with two-dimensional windows; y is the reference."""
    weights = np.array([0.299, 0.587, 0.114])
    dist, ref = x @ weights, y @ weights
    drawn = available = 0.0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        axis = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * (size / 5) ** 2))
        window = np.outer(axis, axis) / np.outer(axis, axis).sum()

        def mean(p, window=window):
            return signal.convolve2d(p, window, mode="valid")

        if scale:
            ref, dist = mean(ref)[::2, ::2], mean(dist)[::2, ::2]
        mr, md = mean(ref), mean(dist)
        vr, vd = np.maximum(mean(ref**2) - mr**2, 0), np.maximum(mean(dist**2) - md**2, 0)
        cov = mean(ref * dist) - mr * md
        for r, d, c in zip(vr.ravel(), vd.ravel(), cov.ravel(), strict=True):
            gain, rest = c / (r + 1e-10), 0.0
            rest = d - gain * c
            if r < 1e-10:
                gain, rest, r = 0.0, d, 0.0
            if d < 1e-10:
                gain, rest = 0.0, 0.0
            if gain < 0:
                gain, rest = 0.0, d
            drawn += np.log10(1 + gain**2 * r / (max(rest, 1e-10) + noise))
            available += np.log10(1 + r / noise)
    return drawn / available


@pytest.mark.parametrize("size", [(41, 41), (64, 91)])
def test_vif_is_sheikhs(size):
    clean = scene(*size)
    rainy = rained(clean)
    assert vif(rainy, clean) == pytest.approx(vif_by_definition(rainy, clean), rel=1e-9)
    assert vif(clean, rainy) == pytest.approx(vif_by_definition(clean, rainy), rel=1e-9)


def test_vif_with_flat_parts_and_opposite_contrast():
    clean = scene(48, 64)
    clean[:, 40:] = 77
    rainy = 255 - clean
    rainy[:20] = 30
    assert vif(rainy, clean) == pytest.approx(vif_by_definition(rainy, clean), rel=1e-9)


def test_vif_rewards_contrast():
    clean = scene(64, 64)
    louder = np.clip((clean.astype(float) - 90) * 1.3 + 90, 0, 255).astype(np.uint8)
    assert vif(louder, clean) > 1


def test_vif_of_a_flat_reference():
    flat = np.full((48, 48, 3), 90, np.uint8)
    assert vif(flat, flat) == 1


def test_against_an_independent_library():
    """piq 0.8.0 in double precision on the same picture; its median and its epsilon in FSIM differ slightly."""
    clean = scene(120, 160)
    rainy = rained(clean)
    assert fsim(rainy, clean) == pytest.approx(PIQ["fsim"], abs=2e-5)
    assert fsimc(rainy, clean) == pytest.approx(PIQ["fsimc"], abs=2e-5)
    assert vif(rainy, clean) == pytest.approx(PIQ["vif"], abs=1e-6)


PIQ = {"fsim": 0.7403409151514253, "fsimc": 0.7403352564499465, "vif": 0.20383904567071487}
