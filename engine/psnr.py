"""The peak signal-to-noise ratio of a mean squared error: whoever measures one has it in decibels from here."""

import math


def psnr(squared_error: float, peak: float = 1.0) -> float:
    """Infinite where nothing differs; NaN where the error is."""
    return math.inf if squared_error == 0 else 20 * math.log10(peak) - 10 * math.log10(squared_error)
