"""What each recorded operation means in nodes, one file per kind. Importing this makes all of them known."""

from . import channels, convolution, own, pixels, places, pointwise

__all__ = ["channels", "convolution", "own", "pixels", "places", "pointwise"]
