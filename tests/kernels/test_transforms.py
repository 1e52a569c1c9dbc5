"""Forward-mode derivatives and the transforms of torch.func: right or refused, never zero in silence."""

import pytest
import torch
from op_db import OPS
from torch.autograd import forward_ad

from unrain import kernels
from unrain.kernels import native


def _is_constant(op, sample):
    """The direction of a vector of one number does not change with it."""
    return op.name.startswith("memory") and sample.args[0].shape[1] == 1


CASES = [
    pytest.param(op, sample, id=f"{op.name}-{sample.name}")
    for op in OPS.values()
    for sample in op.samples
    if sample.gradient and sample.args[0].numel() and not _is_constant(op, sample)
]
FIRST = [next(case for case in CASES if case.values[0] is op) for op in OPS.values() if op.differentiable]


def of_first_argument(op, sample, dtype):
    """The op as a function of its first argument alone, to one row of all its numbers, and that argument."""
    first, *others = sample.at(dtype)

    def function(x):
        found = op.function(x, *others, **sample.keywords)
        return torch.cat([each.flatten() for each in (found if isinstance(found, tuple | list) else (found,))])

    return function, first


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_forward_mode_gives_the_derivative(op, sample):
    exact, x = of_first_argument(op, sample, torch.float64)
    direction = torch.rand_like(x)
    with kernels.use("reference"):  # in float64, by two backward passes: no forward mode takes part
        expected = torch.autograd.functional.jvp(exact, x, direction)[1]
    function, x = of_first_argument(op, sample, torch.float32)
    direction = direction.float()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction))).tangent
    for found in (tangent, torch.func.jvp(function, (x,), (direction,))[1]):
        assert (found.double() - expected).norm() <= 1e-4 * expected.norm()
    assert expected.norm() > 0


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_gradients_of_torch_func_are_those_of_autograd(op, sample):
    function, x = of_first_argument(op, sample, torch.float32)
    expected = torch.autograd.functional.vjp(lambda x: function(x).exp().sum(), x)[1]
    single = torch.func.grad(lambda x: function(x).exp().sum())
    for found in (single(x), *torch.func.vmap(single)(torch.stack([x, x]))):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


def read(query, items):
    return torch.ops.unrain.memory_read(query, items, False)[0]


def test_the_bare_op_is_right_inside_torch_func_and_refuses_a_tangent():
    query, items, direction = torch.rand(5, 8), torch.rand(3, 8), torch.rand(5, 8)
    expected = torch.func.jvp(lambda q: kernels.memory_read(q, items), (query,), (direction,))[1]
    assert torch.equal(torch.func.jvp(lambda q: read(q, items), (query,), (direction,))[1], expected)
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="memory_read has no forward-mode derivative"):
            read(forward_ad.make_dual(query, direction), items)
        read(query, items)  # no tangent, nothing to refuse


@pytest.mark.skipif(native.available() is not None, reason="the compiled part is not there")
def test_a_backend_asked_for_by_name_refuses_forward_mode():
    query = torch.rand(5, 8)
    with kernels.use("native"), forward_ad.dual_level(), pytest.raises(kernels.BackendUnavailable, match="forward"):
        kernels.memory_read(forward_ad.make_dual(query, query), query)


def test_a_compiled_function_has_its_forward_mode_derivative():
    query, items, direction = torch.rand(5, 8), torch.rand(3, 8), torch.rand(5, 8)
    expected = torch.func.jvp(lambda q: kernels.memory_read(q, items), (query,), (direction,))[1]
    compiled = torch.compile(lambda q: kernels.memory_read(q, items), backend="aot_eager")
    compiled(query)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(compiled(forward_ad.make_dual(query, direction))).tangent
    torch.testing.assert_close(found, expected)
