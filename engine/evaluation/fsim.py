"""Feature similarity, FSIM and FSIMc (L. Zhang, L. Zhang, X. Mou, D. Zhang, IEEE TIP 2011).

Two maps are compared, the phase congruency (Kovesi's PC_2 from four scales and four orientations of log-Gabor filters)
and the gradient magnitude (Scharr), and pooled with the larger phase congruency as weight. Luminance and chrominance
are YIQ in 0 to 255, averaged and thinned by max(1, round(min(H, W) / 256)) first. FSIMc multiplies in the chrominance
to the power of 0.03.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .planes import BT601_FULL, Picture, as_pair, automatic_factor, weighted

YIQ_I, YIQ_Q = (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)
PC_CONSTANT, GRADIENT_CONSTANT, CHROMA_CONSTANT, CHROMA_POWER = 0.85, 160.0, 200.0, 0.03

SCALES, ORIENTATIONS = 4, 4
SHORTEST_WAVE, WAVE_STEP = 6.0, 2.0  # pixels; each scale doubles
BANDWIDTH = 0.55  # sigma of the log-Gabor over its centre frequency
ANGULAR_SIGMA = math.pi / ORIENTATIONS / 1.2
LOWPASS_CUTOFF, LOWPASS_ORDER = 0.45, 15  # keeps the corners of the spectrum out
NOISE_SIGMAS, NOISE_RESCALE = 2.0, 1.7  # Kovesi's threshold, lowered for PC_2
EPSILON = 1e-4


def fsim(x: Picture, clean: Picture) -> float:
    """FSIM of the luminance, 1 for equal pictures."""
    a, b = as_pair(x, clean)
    similarity, weight = _feature_similarity(_thinned(a, BT601_FULL), _thinned(b, BT601_FULL))
    return _pooled(similarity, weight)


def fsimc(x: Picture, clean: Picture) -> float:
    """FSIMc, FSIM with the chrominance of YIQ, 1 for equal pictures."""
    a, b = as_pair(x, clean)
    similarity, weight = _feature_similarity(_thinned(a, BT601_FULL), _thinned(b, BT601_FULL))
    chroma = torch.ones_like(similarity)
    for axis in (YIQ_I, YIQ_Q):
        chroma *= _similar(_thinned(a, axis), _thinned(b, axis), CHROMA_CONSTANT)
    # Opposite hues make the product negative; the definition takes the real part of the complex power.
    power = chroma.abs() ** CHROMA_POWER
    power = torch.where(chroma < 0, power * math.cos(math.pi * CHROMA_POWER), power)
    return _pooled(similarity * power, weight)


def _thinned(planes: torch.Tensor, weights: tuple[float, float, float]) -> torch.Tensor:
    """One axis of YIQ in 0 to 255, [B, h, w]: conv2 with an F x F mean, zero borders, at every F-th pixel."""
    plane = weighted(planes, weights) * 255
    factor = automatic_factor(*plane.shape[-2:])
    if factor == 1:
        return plane
    before = (factor - 1) // 2
    height, width = plane.shape[-2:]
    padded = F.pad(plane, (before, factor, before, factor))
    return F.avg_pool2d(padded, factor, factor)[:, : -(-height // factor), : -(-width // factor)]


def _feature_similarity(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    congruency_x, congruency_y = phase_congruency(x), phase_congruency(y)
    similarity = _similar(congruency_x, congruency_y, PC_CONSTANT)
    similarity = similarity * _similar(_gradient(x), _gradient(y), GRADIENT_CONSTANT)
    return similarity, torch.maximum(congruency_x, congruency_y)


def _similar(x: torch.Tensor, y: torch.Tensor, constant: float) -> torch.Tensor:
    return (2 * x * y + constant) / (x.square() + y.square() + constant)


def _pooled(similarity: torch.Tensor, weight: torch.Tensor) -> float:
    total = weight.flatten(1).sum(1)
    value = (similarity * weight).flatten(1).sum(1) / total
    # Two pictures without any feature have no weights: a plain mean is the limit.
    return float(torch.where(total > 0, value, similarity.flatten(1).mean(1)).mean())


def _gradient(plane: torch.Tensor) -> torch.Tensor:
    """Scharr's gradient magnitude with zero borders."""
    padded = F.pad(plane, (1, 1, 1, 1))
    across = padded[:, :, :-2] - padded[:, :, 2:]
    down = padded[:, :-2] - padded[:, 2:]
    horizontal = (3 * (across[:, :-2] + across[:, 2:]) + 10 * across[:, 1:-1]) / 16
    vertical = (3 * (down[:, :, :-2] + down[:, :, 2:]) + 10 * down[:, :, 1:-1]) / 16
    return torch.hypot(horizontal, vertical)


class _Bank(NamedTuple):
    filters: torch.Tensor  # [ORIENTATIONS, SCALES, H, W], the zero frequency at the corner
    smallest_power: torch.Tensor  # [ORIENTATIONS], sum of the squared filter of the smallest scale
    noise_gain: torch.Tensor  # [ORIENTATIONS], expected energy^2 of unit noise through all scales


def phase_congruency(plane: torch.Tensor) -> torch.Tensor:
    """Kovesi's PC_2 summed over orientations, [B, H, W] -> [B, H, W]."""
    bank = _bank(*plane.shape[-2:])
    spectrum = torch.fft.fft2(plane)
    energies = torch.zeros_like(plane)
    amplitudes = torch.zeros_like(plane)
    for orientation in range(ORIENTATIONS):
        filters = bank.filters[orientation].to(plane.device)
        response = torch.fft.ifft2(spectrum[:, None] * filters)  # [B, SCALES, H, W]: even part real, odd part imaginary
        even, odd = response.real, response.imag
        amplitude = (even.square() + odd.square()).sqrt_()
        sum_even, sum_odd = even.sum(1), odd.sum(1)
        length = torch.hypot(sum_even, sum_odd) + EPSILON
        mean_even, mean_odd = (sum_even / length)[:, None], (sum_odd / length)[:, None]
        along = even * mean_even + odd * mean_odd
        energy = (along - (even * mean_odd - odd * mean_even).abs()).sum(1)

        # The smallest scale is mostly noise; the median of its chi-squared energy gives the noise power robustly.
        power = _median(amplitude[:, 0].square().flatten(1)) / math.log(2) / float(bank.smallest_power[orientation])
        rayleigh = torch.sqrt(power * float(bank.noise_gain[orientation]) / 2)
        threshold = rayleigh * (math.sqrt(math.pi / 2) + NOISE_SIGMAS * math.sqrt(2 - math.pi / 2)) / NOISE_RESCALE
        energies += (energy - threshold[:, None, None]).clamp_min_(0)
        amplitudes += amplitude.sum(1)
    return torch.where(amplitudes > 0, energies / amplitudes, 0.0)


def _median(rows: torch.Tensor) -> torch.Tensor:
    """The median of each row, the mean of the middle two where the count is even; selects rather than sorts."""
    count = rows.shape[1]
    low, high = ((count + 1) // 2, count // 2 + 1)
    middle = rows.kthvalue(low, dim=1).values
    return middle if low == high else (middle + rows.kthvalue(high, dim=1).values) / 2


@lru_cache(maxsize=4)
def _bank(height: int, width: int) -> _Bank:
    x, y = _frequencies(width)[None, :], _frequencies(height)[:, None]
    radius, angle = torch.hypot(x, y), torch.atan2(-y, x.expand(height, width))
    lowpass = 1 / (1 + (radius / LOWPASS_CUTOFF) ** (2 * LOWPASS_ORDER))
    radius[0, 0] = 1
    radial = []
    for scale in range(SCALES):
        centre = 1 / (SHORTEST_WAVE * WAVE_STEP**scale)
        band = torch.exp(-(torch.log(radius / centre) ** 2) / (2 * math.log(BANDWIDTH) ** 2)) * lowpass
        band[0, 0] = 0
        radial.append(band)
    filters = []
    for orientation in range(ORIENTATIONS):
        turn = angle - orientation * math.pi / ORIENTATIONS
        distance = torch.atan2(torch.sin(turn), torch.cos(turn))
        filters.append(torch.stack(radial) * torch.exp(-(distance**2) / (2 * ANGULAR_SIGMA**2)))
    bank = torch.stack(filters)
    # Sum of A_i^2 and of A_i A_j of the real impulse responses, which Kovesi scales by sqrt(H W).
    impulses = torch.fft.ifft2(bank).real * math.sqrt(height * width)
    total = impulses.sum(1).square().sum((-2, -1))  # sum A_i^2 + 2 sum_{i<j} A_i A_j
    return _Bank(bank, bank[:, 0].square().sum((-2, -1)), 2 * total)


def _frequencies(length: int) -> torch.Tensor:
    """Kovesi's axis, zero frequency first: for an odd length it divides by length - 1, so that it ends at one half."""
    half = length // 2
    axis = torch.arange(-half, length - half, dtype=torch.float64) / max(length - length % 2, 1)
    return torch.fft.ifftshift(axis)
