"""Visual information fidelity in the pixel domain (H. R. Sheikh and A. C. Bovik, IEEE TIP 2006; the authors'
vifp_mscale).

The clean picture is modelled as a Gaussian scale mixture, the other as a local gain g and additive noise of variance v;
a visual noise of variance 2 is added to both. VIF is the information the eye can draw from the picture over that it can
draw from the clean one, summed over four scales with Gaussian windows of 17, 9, 5 and 3 taps and a fifth of that as
sigma. The luminance is 0.299 R + 0.587 G + 0.114 B in 0 to 255. A picture with more contrast than the clean one may
exceed 1.
"""

from __future__ import annotations

import torch

from ..errors import UnrainError
from .planes import BT601_FULL, Picture, as_pair, filter_valid, gaussian, weighted

VISUAL_NOISE = 2.0
TINY = 1e-10
WINDOWS = tuple(gaussian(size, size / 5) for size in (17, 9, 5, 3))
SMALLEST = 41  # the side that leaves one window at the last scale: ((41 - 8) / 2 = 17, then 7, then 3)


def vif(x: Picture, clean: Picture) -> float:
    """Pixel-domain VIF of `x` against `clean`; 1 for equal pictures, and not symmetric."""
    distorted, reference = (weighted(planes, BT601_FULL) * 255 for planes in as_pair(x, clean))
    height, width = reference.shape[-2:]
    if min(height, width) < SMALLEST:
        raise UnrainError(f"VIF needs pictures of at least {SMALLEST}x{SMALLEST} pixels, not {width}x{height}")
    drawn = available = torch.zeros(len(reference), dtype=torch.float64, device=reference.device)
    for scale, window in enumerate(WINDOWS):
        if scale:
            reference = filter_valid(reference, window)[:, ::2, ::2]
            distorted = filter_valid(distorted, window)[:, ::2, ::2]
        scale_drawn, scale_available = _information(reference, distorted, window)
        drawn, available = drawn + scale_drawn, available + scale_available
    # A flat clean picture holds no information: equal pictures are then perfect, any other is worthless.
    flat = available <= TINY
    value = torch.where(flat, (drawn <= TINY).to(drawn.dtype), drawn / available.clamp_min(TINY))
    return float(value.mean())


def _information(
    reference: torch.Tensor, distorted: torch.Tensor, window: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    mean_r, mean_d = filter_valid(reference, window), filter_valid(distorted, window)
    var_r = (filter_valid(reference.square(), window) - mean_r.square()).clamp_min_(0)
    var_d = (filter_valid(distorted.square(), window) - mean_d.square()).clamp_min_(0)
    covariance = filter_valid(reference * distorted, window) - mean_r * mean_d

    gain = covariance / (var_r + TINY)
    noise = var_d - gain * covariance
    # Where the clean picture is flat everything is noise; where the other is flat nothing is left of the signal;
    # where they run against each other the gain counts as zero.
    flat_r, flat_d = var_r < TINY, var_d < TINY
    noise = torch.where(flat_r | (gain < 0), var_d, noise)
    noise = noise.masked_fill_(flat_d, 0).clamp_min_(TINY)
    gain = gain.masked_fill_(flat_r | flat_d, 0).clamp_min_(0)
    var_r = var_r.masked_fill_(flat_r, 0)

    drawn = torch.log1p(gain.square() * var_r / (noise + VISUAL_NOISE))
    return drawn.flatten(1).sum(1), torch.log1p(var_r / VISUAL_NOISE).flatten(1).sum(1)
