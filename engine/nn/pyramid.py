"""Image pyramids as a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...kernels import gaussian_pyramid


class GaussianPyramid(nn.Module):
    """The reduced levels of a picture, from fine to coarse, over `kernels.gaussian_pyramid`; no state.

    GaussianPyramid(factors=(2, 4)) is the K x K mean of the deraining papers' code; GaussianPyramid(kernel="binomial",
    levels=3) equals three times OpenCV's pyrDown. The full-size picture is not in the list.
    """

    def __init__(self, factors: Sequence[int] = (2, 4), kernel: str = "box", levels: int | None = None):
        super().__init__()
        self.factors, self.kernel, self.levels = tuple(factors), kernel, levels

    def forward(self, x: Tensor) -> list[Tensor]:
        return gaussian_pyramid(x, factors=self.factors, kernel=self.kernel, levels=self.levels)

    def extra_repr(self) -> str:
        if self.kernel == "box":
            return f"factors={self.factors}"
        return f"kernel={self.kernel!r}, levels={self.levels}"
