"""What else PyTorch does with a model: torch.func, forward mode, autocast, data parallel training."""

import copy
import functools
import os

import pytest
import torch
from layouts import OptionalStateCell, StackedCell
from torch.autograd import forward_ad


@pytest.fixture
def given():
    return torch.randn(2, 3, 6, 7), (torch.randn(2, 8, 6, 7), torch.randn(2, 8, 6, 7))


def test_func_grad_and_vmap(quick, given):
    plain = StackedCell()
    model = quick(copy.deepcopy(plain))
    x, state = given
    model(x, state)

    def total(module, x):
        h, c = module(x, state)
        return h.sum() + (c * c).sum()

    mine, theirs = (torch.func.grad(functools.partial(total, each))(x) for each in (model, plain))
    torch.testing.assert_close(mine, theirs)
    many = torch.randn(3, 2, 3, 6, 7)
    mine, theirs = (torch.vmap(lambda x, each=each: each(x, state)[0])(many) for each in (model, plain))
    torch.testing.assert_close(mine, theirs)


def test_functional_call(quick, given):
    model = quick(StackedCell())
    expected = model(*given)
    other = {name: 2 * value.detach() for name, value in model.named_parameters()}
    assert not torch.allclose(torch.func.functional_call(model, other, given)[0], expected[0])
    torch.testing.assert_close(model(*given), expected)


def test_forward_mode(quick, given):
    plain = StackedCell()
    model = quick(copy.deepcopy(plain))
    x, state = given
    model(x, state)
    tangent = torch.randn_like(x)
    found = []
    for module in (model, plain):
        with forward_ad.dual_level():
            h, _ = module(forward_ad.make_dual(x, tangent), state)
            found.append(forward_ad.unpack_dual(h).tangent)
    torch.testing.assert_close(*found)


def test_gradients_of_gradients(quick, given):
    plain = StackedCell()
    model = quick(copy.deepcopy(plain))
    x, state = given
    found = []
    for module in (model, plain):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(module(leaf, state)[0].sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), leaf)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_autocast_keeps_its_dtypes(quick, ran, given, training):
    plain = OptionalStateCell()
    model = quick(copy.deepcopy(plain))
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        mine, theirs = model(*given), plain(*given)
        assert ran(model, *given) == {"lstm_gates": 1}
    assert [each.dtype for each in mine] == [each.dtype for each in theirs]
    exact = plain(*given)
    for ours, usual, right in zip(mine, theirs, exact, strict=True):
        assert (ours - right).abs().max() <= 2 * (usual - right).abs().max()
    torch.testing.assert_close(model(*given), exact)  # and without it again


def test_autocast_inside(quick, given):
    class Inside(StackedCell):
        def forward(self, x, state):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                h, c = super().forward(x, state)
            return h + 1, c

    plain = Inside()
    mine, theirs = quick(copy.deepcopy(plain))(*given), plain(*given)
    assert [each.dtype for each in mine] == [each.dtype for each in theirs]
    torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02)


def test_checkpointed_layers_are_left_alone(quick, given):
    """What is computed again on the way back is a matter of its own."""

    class Checkpointed(StackedCell):
        def forward(self, x, state):
            return torch.utils.checkpoint.checkpoint(super().forward, x, state, use_reentrant=False)

    plain = Checkpointed()
    model = quick(copy.deepcopy(plain))
    torch.testing.assert_close(model(*given), plain(*given))
    assert not model.report.fused and "checkpoint" in str(model.report)


def _one_of_two(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        from unrain import accelerate

        plain = StackedCell()
        model = accelerate(copy.deepcopy(plain), options={"rest": "eager"})
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        batch = [torch.randn(2, n, 6, 7) for n in (3, 8, 8)]
        mine = [each[rank : rank + 1] for each in batch]
        parallel(mine[0], (mine[1], mine[2]))[0].mean().backward()
        plain(batch[0], (batch[1], batch[2]))[0].mean().backward()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        results.put((rank, [entry.op for entry in model.report.fused]))
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes():
    """Data parallel training over gloo: the mean of both gradients is that of the whole batch."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    both = [context.Process(target=_one_of_two, args=(rank, port, results)) for rank in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(120)
        assert each.exitcode == 0
    assert sorted(results.get(timeout=5) for _ in both) == [(0, ["lstm_gates"]), (1, ["lstm_gates"])]
