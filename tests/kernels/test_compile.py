"""What PyTorch's own machinery makes of the ops: opcheck, torch.compile, torch.export, autocast, fake tensors."""

import pytest
import torch
from op_db import OPS
from torch import nn

from unrain import kernels

OVERLOADS = {
    "lstm_gates": lambda s, a: a,
    "conv_lstm": lambda s, a: (*a, None),
    "gru_gates": lambda s, a: (*a, s.keywords.get("z_keeps", False), s.keywords.get("activation", "tanh")),
    "conv3x3": lambda s, a: (
        *a,
        s.keywords.get("dilation", 1),
        s.keywords.get("relu", False),
        s.keywords.get("relu_sum", False),
    ),
    "charbonnier": lambda s, a: (*a, s.keywords["eps"], s.keywords["reduction"]),
    "memory_read": lambda s, a: (*a, s.keywords["return_weights"]),
    "memory_update": lambda s, a: (*a, s.keywords["rule"]),
    "gaussian_pyramid": lambda s, a: (
        *a,
        list(s.keywords.get("factors", (2, 4, 8))),
        s.keywords["kernel"],
    ),
    "frame_to_tensor": lambda s, a: (
        *a,
        s.keywords.get("format", "rgb"),
        s.keywords.get("multiple", 1),
        torch.float16,
        True,
    ),
    "tensor_to_frame": lambda s, a: (*a, *[None] * (2 - len(a)), *a[0].shape[2:], "nearest", False),
    "ssim": lambda s, a: (*a, s.keywords["window"], s.keywords.get("data_range", 1.0)),
}


def _overload_arguments(op, sample, layout):
    args = sample.at(torch.float32, "cpu", layout)
    return OVERLOADS[op.name](sample, args)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_opcheck(op):
    """Schema, fake tensors, autograd registration and tracing of the op, on three kinds of call and two layouts."""
    overload = getattr(torch.ops.unrain, op.name).default
    samples = [s for s in op.samples if s.args[0].numel()]
    picked = [samples[1], samples[len(samples) // 2], samples[-1]]
    for sample, layout in zip(picked, (op.layouts[0], op.layouts[1], op.layouts[-1]), strict=True):
        args = _overload_arguments(op, sample, layout)
        if sample.gradient:
            args = tuple(
                a.requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args
            )
        torch.library.opcheck(overload, args)


def test_opcheck_of_the_backward_ops():
    pre, c, h = torch.randn(2, 16, 5, 4), torch.randn(2, 4, 5, 4), torch.randn(2, 4, 5, 4)
    x, weight, bias = torch.randn(2, 3, 5, 4), torch.randn(16, 7, 3, 3), torch.randn(16)
    q, m, one = torch.randn(9, 6), torch.randn(4, 6), torch.tensor(1.0)
    ops = torch.ops.unrain
    checks = [
        (ops.lstm_gates_backward, (h, c, pre, c, torch.randn(3, 4, 1, 1))),
        (ops.lstm_gates_backward, (h, c, torch.randn(2, 12, 5, 4), None, None)),
        (ops.conv_lstm_backward, (h, c, x, h, c, weight, bias)),
        (ops.conv_lstm_backward, (h, c, x, None, None, weight, None)),
        (ops.gru_gates_backward, (h, *torch.randn(2, 8, 5, 4).chunk(2, 1), c, h, c, True, "tanh")),
        (ops.gru_gates_backward, (h, c, h, None, None, None, False, "relu")),
        (ops.conv3x3_backward, (h, x, weight[:4, :3].contiguous(), bias[:4], h, 1, True, True)),
        (ops.charbonnier_backward, (one, x, x.flip(0), 1e-3, "mean")),
        (ops.memory_read_backward, (q, torch.randn(9, 4), q, m)),
        (ops.memory_read_backward, (q, None, q, m)),
        (ops.memory_update_backward, (m, q, m, "hard")),
        (ops.gaussian_pyramid_backward, ([x[..., :3, :2], x[..., :2, :1]], 5, 4, [2, 4], "box")),
        (ops.ssim_backward, (one, x, x.flip(0), "same", 1.0, [True, False])),
    ]
    for op, args in checks:
        torch.library.opcheck(op.default, args)


class Everything(nn.Module):
    """Every op once, in an order that makes sense: frame in, features, memory, losses, frame out."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 4, 3, padding=1)
        self.gates = nn.Conv2d(4, 16, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(16, 8, 3, 3) * 0.1)
        self.leave = nn.Conv2d(4, 3, 3, padding=1)
        self.register_buffer("items", torch.randn(5, 4))

    def forward(self, frame):
        picture = kernels.frame_to_tensor(frame, multiple=4)
        x = kernels.conv3x3(picture, self.enter.weight, self.enter.bias)
        h, c = kernels.conv_lstm(x, None, None, self.weight)
        h, c = kernels.conv_lstm(x, h, c, self.weight)
        h, c = kernels.lstm_gates(self.gates(h), c)
        h = kernels.conv_gru(x, h, self.weight[:8], None, self.weight[8:12], None)
        rows = h.permute(0, 2, 3, 1).flatten(0, 2)
        read = kernels.memory_read(rows, kernels.memory_update(rows, self.items))
        clean = self.leave(h + read.unflatten(0, (h.shape[0], *h.shape[2:])).permute(0, 3, 1, 2))
        half, quarter = kernels.gaussian_pyramid(clean)
        loss = kernels.charbonnier(clean, picture) - kernels.ssim(clean, picture) + half.mean() + quarter.mean()
        return loss, kernels.tensor_to_frame(clean, picture, size=(frame.shape[1], frame.shape[2]))


@pytest.fixture
def frames():
    return torch.randint(0, 256, (2, 14, 19, 3), dtype=torch.uint8)


@pytest.mark.parametrize("choice", ["auto", "reference"])
def test_compile_without_a_graph_break(frames, choice):
    """One graph, forward and backward; the backend is chosen when it runs, not when it is traced."""
    torch._dynamo.reset()
    module = Everything()
    loss, frame = module(frames)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with kernels.use(choice):
        again, frame_again = compiled(frames)
        again.backward()
    torch.testing.assert_close(again, loss)
    assert (frame_again.int() - frame.int()).abs().max() <= 1  # a value on the edge of two bytes may fall either way
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


@pytest.mark.slow
def test_compile_with_inductor_and_changing_sizes(frames):
    torch._dynamo.reset()
    module = Everything().eval()
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((14, 19), (8, 8), (21, 30)):
            frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
            torch.testing.assert_close(compiled(frames)[0], module(frames)[0])


def test_export_records_the_ops(frames):
    module = Everything().eval()
    with torch.no_grad():
        program = torch.export.export(module, (frames,), strict=True)
        torch.testing.assert_close(program.module()(frames)[0], module(frames)[0])
    names = {node.target._opname for node in program.graph.nodes if str(node.target).startswith("unrain.")}
    assert names == set(OPS)


def test_export_on_the_reference_needs_no_unrain(frames):
    """Under use("reference"), what is exported is plain PyTorch, for tools that know no other op."""
    module = Everything().eval()
    with torch.no_grad(), kernels.use("reference"):
        program = torch.export.export(module, (frames,), strict=False)
        torch.testing.assert_close(program.module()(frames)[0], module(frames)[0])
    assert not [node for node in program.graph.nodes if "unrain" in str(node.target)]


def test_autocast():
    """Gates, pyramid: nothing is cast. conv_lstm: to autocast's dtype, but for the cell. Losses, memory: float32."""
    x, pre, c = torch.rand(1, 4, 12, 12), torch.rand(1, 16, 12, 12), torch.rand(1, 4, 12, 12)
    rows, half = torch.rand(7, 4), torch.rand(1, 4, 12, 12).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert [t.dtype for t in kernels.lstm_gates(pre, c)] == [torch.float32] * 2
        assert [t.dtype for t in kernels.lstm_gates(pre.bfloat16(), c)] == [torch.bfloat16, torch.float32]
        assert kernels.gru_gates(c.bfloat16(), c.bfloat16(), c).dtype == torch.float32
        assert [t.dtype for t in kernels.gaussian_pyramid(x)] == [torch.float32] * 2
        h, cell = kernels.conv_lstm(x, x, c, torch.rand(16, 8, 3, 3), torch.rand(16))
        assert (h.dtype, cell.dtype) == (torch.bfloat16, torch.float32)
        assert kernels.charbonnier(half, x).dtype == torch.float32
        assert kernels.ssim(half, x).dtype == torch.float32
        assert kernels.memory_read(rows.bfloat16(), rows).dtype == torch.float32
        assert kernels.memory_update(rows.bfloat16(), rows).dtype == torch.float32


def test_autocast_reaches_the_gradients():
    weight = torch.rand(16, 8, 3, 3, requires_grad=True)
    x, c = torch.rand(1, 4, 6, 6), torch.rand(1, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        h, _ = kernels.conv_lstm(x, x, c, weight)
    h.sum().backward()
    assert weight.grad.dtype == torch.float32 and bool(weight.grad.abs().sum() > 0)


def test_fake_tensors_need_no_data():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        h, c = kernels.lstm_gates(torch.empty(2, 16, 5, 5), torch.empty(2, 4, 5, 5))
        assert h.shape == c.shape == (2, 4, 5, 5)
        assert kernels.frame_to_tensor(torch.empty(9, 9, 3, dtype=torch.uint8), multiple=8).shape == (1, 3, 16, 16)
