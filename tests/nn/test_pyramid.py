"""GaussianPyramid is the op with its settings remembered."""

import pytest
import torch

from unrain import GaussianPyramid
from unrain.kernels import gaussian_pyramid


def test_levels():
    x = torch.rand(1, 3, 32, 48)
    assert [level.shape[2:] for level in GaussianPyramid()(x)] == [(16, 24), (8, 12)]
    for mine, theirs in zip(
        GaussianPyramid(kernel="binomial", levels=3)(x), gaussian_pyramid(x, kernel="binomial", levels=3), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert not GaussianPyramid().state_dict()


def test_gradient():
    x = torch.rand(1, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GaussianPyramid(), x, fast_mode=True)


def test_repr_tells_the_settings():
    assert repr(GaussianPyramid((2, 3))) == "GaussianPyramid(factors=(2, 3))"
    assert "levels=3" in repr(GaussianPyramid(kernel="binomial", levels=3))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="factors must"):
        GaussianPyramid(factors=(0,))(torch.rand(1, 3, 8, 8))
