"""Every Triton kernel against a float64 reference, forward and backward.

On a GPU these run as they are (`pytest -m gpu`). Without one they run on the CPU through the interpreter of Triton. It
must be chosen before triton is imported: test_triton.py starts them in a process of their own.
"""

import os
from functools import partial

import pytest
import torch
from op_db import assert_as_accurate

from unrain import kernels
from unrain.kernels import registry

if torch.cuda.is_available():
    DEVICE = "cuda"
    pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("poisoned")]
elif os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
    pytestmark = pytest.mark.usefixtures("poisoned")
else:
    pytest.skip("run by test_triton.py in a process with TRITON_INTERPRET=1", allow_module_level=True)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def run(backend, op, inputs, grads):
    """The outputs of op(*inputs), then the gradients to its tensors; `grads` weights the outputs."""
    inputs = [each.detach().requires_grad_() if torch.is_tensor(each) else each for each in inputs]
    leaves = [each for each in inputs if torch.is_tensor(each)]
    with kernels.use(backend):
        out = op(*inputs)
        out = out if isinstance(out, tuple) else (out,)
        loss = sum((each.to(grad.dtype) * grad).sum() for each, grad in zip(out, grads, strict=True))
        return [each.detach() for each in out] + list(torch.autograd.grad(loss, leaves))


def compare(op, *inputs):
    """Outputs and gradients by the rule of `assert_as_accurate`; in float32 twice, for the same bits both times."""
    plain = [each.double() if torch.is_tensor(each) else each for each in inputs]
    with kernels.use("reference"):
        out = op(*plain)
    weights = [torch.randn_like(each) for each in (out if isinstance(out, tuple) else (out,))]
    narrow = [each.float() for each in weights]
    exact = run("reference", op, plain, weights)
    reference = run("reference", op, inputs, narrow)
    found = run("triton", op, inputs, narrow)
    for index, triple in enumerate(zip(found, reference, exact, strict=True)):
        assert_as_accurate(*triple, label=f"number {index} of the outputs, then gradients")
    if DEVICE == "cpu" and inputs[0].dtype == torch.float32:  # on a GPU some gradients are cuDNN's
        for mine, again in zip(found, run("triton", op, inputs, narrow), strict=True):
            assert torch.equal(mine, again), "the second run differs"


def image(*shape, dtype=torch.float32, layout="nchw"):
    return torch.randn(shape, device=DEVICE).to(dtype).to(memory_format=LAYOUTS[layout])


def gates(shape, first, peephole, dtype, layout):
    batch, channels, height, width = shape
    pre = image(batch, (3 if first else 4) * channels, height, width, dtype=dtype, layout=layout)
    c = None if first else image(*shape, layout=layout)
    places = {"no": None, "per pixel": (height, width), "shared": (1, 1)}[peephole]
    weights = None if places is None else image(3, channels, *places, dtype=dtype)
    return [pre, c, weights]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("first", [False, True], ids=["step", "first"])
@pytest.mark.parametrize("peephole", ["no", "per pixel", "shared"])
def test_lstm_gates(dtype, layout, first, peephole):
    compare(kernels.lstm_gates, *gates((2, 5, 3, 7), first, peephole, dtype, layout))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((1, 1, 1, 1), "nchw"), ((2, 3, 40, 33), "nchw"), ((1, 70, 5, 9), "nhwc"), ((1, 1, 40, 33), "nhwc")],
    ids=str,
)
def test_lstm_gates_over_several_tiles(shape, layout):
    compare(kernels.lstm_gates, *gates(shape, False, "shared", torch.float32, layout))


def test_lstm_gates_takes_slices_of_larger_tensors():
    pre, c = image(2, 24, 6, 8)[:, 2:22, 1:, ::2], image(2, 5, 4, 5).transpose(2, 3)
    compare(kernels.lstm_gates, pre, c)


def gru(shape, first, after, dtype, layout):
    batch, channels, height, width = shape
    z, r = image(batch, 2 * channels, height, width, dtype=dtype, layout=layout).chunk(2, 1)
    candidate, hidden = (image(*shape, dtype=dtype, layout=layout) for _ in range(2))
    h = None if first else image(*shape, layout=layout)
    return [z, candidate, h, *((r, hidden) if after else (None, None))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("first", [False, True], ids=["step", "first"])
@pytest.mark.parametrize(
    ("after", "activation", "z_keeps"), [(False, "tanh", False), (True, "relu", True), (True, "none", False)]
)
def test_gru_gates(dtype, layout, first, after, activation, z_keeps):
    step = partial(kernels.gru_gates, activation=activation, z_keeps=z_keeps)
    compare(step, *gru((2, 5, 3, 7), first, after, dtype, layout))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((1, 1, 1, 1), "nchw"), ((2, 3, 40, 33), "nchw"), ((1, 70, 5, 9), "nhwc"), ((1, 1, 40, 33), "nhwc")],
    ids=str,
)
def test_gru_gates_over_several_tiles(shape, layout):
    compare(kernels.gru_gates, *gru(shape, False, True, torch.float32, layout))


def cell(batch, inputs, channels, height, width, first, bias, dtype, layout):
    fan = 9 * (inputs + channels)
    state = (None, None)
    if not first:
        h = image(batch, channels, height, width, dtype=dtype, layout=layout)
        state = h, image(batch, channels, height, width, layout=layout)
    weight = (torch.randn(4 * channels, inputs + channels, 3, 3, device=DEVICE) / fan**0.5).to(dtype)
    b = torch.randn(4 * channels, device=DEVICE).to(dtype) if bias else None
    return [image(batch, inputs, height, width, dtype=dtype, layout=layout), *state, weight, b]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("first", [False, True], ids=["step", "first"])
def test_conv_lstm(dtype, layout, first):
    compare(kernels.conv_lstm, *cell(1, 16, 16, 5, 18, first, bias=True, dtype=dtype, layout=layout))


@pytest.mark.parametrize("first", [False, True], ids=["step", "first"])
def test_conv_lstm_with_other_input_channels_and_without_bias(first):
    compare(kernels.conv_lstm, *cell(2, 5, 16, 3, 4, first, bias=False, dtype=torch.float32, layout="nhwc"))


@pytest.mark.parametrize("channels", [32, 48])
def test_conv_lstm_with_several_blocks_of_channels(channels):
    compare(kernels.conv_lstm, *cell(1, channels, channels, 2, 3, False, bias=True, dtype=torch.float16, layout="nhwc"))


def test_conv_lstm_from_zeros_is_the_first_step():
    x, h, c, weight, bias = cell(1, 16, 16, 4, 4, False, bias=True, dtype=torch.float32, layout="nhwc")
    with kernels.use("triton"):
        started = kernels.conv_lstm(x, None, None, weight, bias)
        stepped = kernels.conv_lstm(x, torch.zeros_like(h), torch.zeros_like(c), weight, bias)
    for one, other in zip(started, stepped, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=4 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("first", [False, True], ids=["step", "first"])
def test_conv_lstm_reads_what_was_prepared(first):
    x, h, c, weight, bias = cell(1, 5, 32, 3, 4, first, bias=True, dtype=torch.float32, layout="nhwc")
    prepared = kernels.prepare_conv_lstm(weight, bias)
    with kernels.use("triton"):
        usual = kernels.conv_lstm(x, h, c, weight, bias)
        without = kernels.conv_lstm(x, h, c, prepared._replace(weight=torch.full_like(weight, float("nan"))))
        other = kernels.conv_lstm(x, h, c, prepared._replace(packed=prepared.packed.flip(0)))
    for mine, theirs, changed in zip(without, usual, other, strict=True):
        assert torch.equal(mine, theirs) and not torch.equal(changed, theirs)


def test_conv_lstm_packs_a_weight_once_until_it_changes():
    from unrain.kernels.conv_lstm import triton as implementation

    weight = torch.randn(64, 32, 3, 3, device=DEVICE)
    first = implementation.packed(weight)
    assert implementation.packed(weight) is first
    weight += 1
    second = implementation.packed(weight)
    assert second is not first and not torch.equal(second.step, first.step)
    key = id(weight)
    del weight
    assert key not in implementation._packed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (2, 3, 29, 31)], ids=str)
def test_charbonnier(dtype, reduction, shape):
    pred, target = (torch.randn(shape, device=DEVICE).to(dtype) for _ in range(2))
    compare(lambda a, b: kernels.charbonnier(a, b, 1e-3, reduction), pred, target)


@pytest.mark.parametrize("eps", [1e-20, 1e-200])
def test_charbonnier_with_a_tiny_eps_has_a_gradient_where_both_agree(eps):
    pred = torch.tensor([0.25, 0.75], device=DEVICE, requires_grad=True)
    with kernels.use("triton"):
        kernels.charbonnier(pred, torch.tensor([0.25, 0.25], device=DEVICE), eps=eps).backward()
    assert pred.grad.tolist() == [0.0, 0.5]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "items", "columns", "weights"), [(70, 20, 64, False), (5, 3, 2, True)])
def test_memory_read(dtype, count, items, columns, weights, monkeypatch):
    from unrain.kernels.memory_read import triton as implementation

    monkeypatch.setattr(implementation, "CHUNKS", 1)  # so that one program walks over two blocks
    query, memory = torch.randn(count, columns, device=DEVICE).to(dtype), torch.randn(items, columns, device=DEVICE)
    compare(lambda q, m: kernels.memory_read(q, m, weights), query, memory.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize(("count", "items", "columns"), [(100, 17, 20), (9, 3, 7)])
def test_memory_update(dtype, rule, count, items, columns, monkeypatch):
    from unrain.kernels.memory_read import triton as implementation

    monkeypatch.setattr(implementation, "CHUNKS", 2)
    query, memory = torch.randn(count, columns, device=DEVICE).to(dtype), torch.randn(items, columns, device=DEVICE)
    compare(lambda q, m: kernels.memory_update(q, m, rule), query, memory.to(dtype))


@pytest.mark.parametrize(
    ("dtype", "shape", "window", "layout"),
    [
        (torch.float32, (1, 1, 3, 56), "same", "nchw"),
        (torch.float32, (1, 1, 12, 11), "valid", "nchw"),
        (torch.float32, (1, 2, 2, 3), "same", "nhwc"),
        (torch.float16, (1, 1, 2, 9), "same", "nchw"),
        (torch.bfloat16, (1, 1, 12, 13), "valid", "nchw"),
    ],
)
def test_ssim(dtype, shape, window, layout):
    x = torch.rand(shape, device=DEVICE)
    y = (x + 0.1 * torch.randn(shape, device=DEVICE)).to(dtype).to(memory_format=LAYOUTS[layout])
    x = x.to(dtype).to(memory_format=LAYOUTS[layout])
    compare(lambda a, b: kernels.ssim(a, b, window), x, y)


def test_ssim_with_one_gradient():
    x, y = torch.rand(2, 1, 1, 3, 4, device=DEVICE)
    y.requires_grad_()
    with kernels.use("triton"):
        (found,) = torch.autograd.grad(kernels.ssim(x, y), y)
    with kernels.use("reference"):
        (expected,) = torch.autograd.grad(kernels.ssim(x, y), y)
    torch.testing.assert_close(found, expected)


EMPTY = {
    "lstm_gates": (kernels.lstm_gates, [(0, 8, 3, 3), (0, 2, 3, 3), (3, 2, 1, 1)]),
    "conv_lstm": (kernels.conv_lstm, [(0, 16, 3, 3), (0, 16, 3, 3), (0, 16, 3, 3), (64, 32, 3, 3), (64,)]),
    "conv_lstm first": (lambda x, w: kernels.conv_lstm(x, None, None, w), [(0, 16, 3, 3), (64, 32, 3, 3)]),
    "charbonnier mean": (kernels.charbonnier, [(0, 3), (0, 3)]),
    "charbonnier sum": (lambda a, b: kernels.charbonnier(a, b, reduction="sum"), [(0, 3), (0, 3)]),
    "memory_read": (kernels.memory_read, [(0, 4), (3, 4)]),
    "memory_update soft": (kernels.memory_update, [(0, 4), (3, 4)]),
    "memory_update hard": (lambda q, m: kernels.memory_update(q, m, "hard"), [(0, 4), (3, 4)]),
    "ssim": (kernels.ssim, [(0, 3, 9, 9), (0, 3, 9, 9)]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_batch_of_nothing(name):
    op, shapes = EMPTY[name]
    inputs = [torch.randn(shape, device=DEVICE) for shape in shapes]
    with kernels.use("reference"):
        out = op(*inputs)
    grads = [torch.ones_like(each) for each in (out if isinstance(out, tuple) else (out,))]
    torch.testing.assert_close(run("triton", op, inputs, grads), run("reference", op, inputs, grads), equal_nan=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_non_finite_values_reach_the_result(value):
    def spoiled(*shape):
        made = torch.randn(shape, device=DEVICE)
        made.view(-1)[0] = value
        return made

    with kernels.use("triton"):
        h, c = kernels.lstm_gates(image(1, 8, 2, 2), spoiled(1, 2, 2, 2))
        assert not c.isfinite().all()
        h, c = kernels.conv_lstm(spoiled(1, 16, 3, 3), *image(2, 1, 16, 3, 3).unbind(), image(64, 32, 3, 3))
        assert not (h.isfinite().all() and value != value)
        assert not kernels.charbonnier(spoiled(2, 3), torch.zeros(2, 3, device=DEVICE)).isfinite()
        assert not kernels.memory_read(spoiled(3, 4), torch.randn(2, 4, device=DEVICE))[0].isfinite().any()
        for rule in ("soft", "hard"):
            new = kernels.memory_update(spoiled(3, 4), torch.randn(2, 4, device=DEVICE), rule)
            assert not new.isfinite().any(), rule
        assert not kernels.ssim(spoiled(1, 1, 3, 3), torch.rand(1, 1, 3, 3, device=DEVICE)).isfinite()


def test_info_calls_them_available():
    assert all(kernels.info()[op]["triton"] == "available" for op in IMPLEMENTED)


IMPLEMENTED = ("lstm_gates", "conv_lstm", "charbonnier", "memory_read", "memory_update", "ssim")


def test_an_explicit_choice_that_cannot_be_met_says_why():
    with kernels.use("triton"):
        with pytest.raises(registry.BackendUnavailable, match="12 channels are not a multiple of 16"):
            kernels.conv_lstm(image(1, 12, 3, 3), None, None, image(48, 24, 3, 3))
        with pytest.raises(registry.BackendUnavailable, match="200 items are more than the 128"):
            kernels.memory_read(torch.randn(3, 4, device=DEVICE), torch.randn(200, 4, device=DEVICE))
        with pytest.raises(registry.BackendUnavailable, match=r"no kernel for torch\.float64"):
            kernels.charbonnier(torch.zeros(3, device=DEVICE).double(), torch.zeros(3, device=DEVICE).double())
