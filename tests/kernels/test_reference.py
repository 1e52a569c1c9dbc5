"""The references themselves: against independent ways to the same numbers, and their derivatives."""

import pytest
import torch
import torch.nn.functional as F
from op_db import OPS

from unrain import kernels
from unrain.kernels import library
from unrain.kernels.conv_lstm.packing import parts

DIFFERENTIABLE = [op for op in OPS.values() if op.differentiable]


@pytest.fixture(autouse=True)
def on_the_reference():
    with kernels.use("reference"):
        yield


@pytest.fixture(params=["plain PyTorch", "the op"])
def through(request, monkeypatch):
    """Both ways to the reference: as plain PyTorch, and as the op that torch.compile records."""
    if request.param == "the op":
        monkeypatch.setattr(library, "takes_plain_path", lambda call: False)


def _leaves(op, sample):
    return [a.requires_grad_() if isinstance(a, torch.Tensor) else a for a in sample.at(torch.float64)]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_gradients(op, through):
    for sample in op.samples:
        if sample.args[0].numel():
            assert torch.autograd.gradcheck(
                lambda *args, s=sample: op.function(*args, **s.keywords), _leaves(op, sample), fast_mode=True
            )


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_second_derivatives(op, monkeypatch):
    """Of the op; those of plain PyTorch are PyTorch's own."""
    monkeypatch.setattr(library, "takes_plain_path", lambda call: False)
    small = [s for s in op.samples if 1 < s.args[0].numel() < 1500][:4]
    assert small
    for sample in small:
        assert torch.autograd.gradgradcheck(
            lambda *args, s=sample: op.function(*args, **s.keywords), _leaves(op, sample), fast_mode=True
        )


def test_lstm_gates_is_the_lstm_cell():
    """On 1 x 1 images, with its matrices as the convolution, this is torch.nn.LSTMCell (order i, f, g, o too)."""
    cell = torch.nn.LSTMCell(5, 4).double()
    x, h, c = (torch.randn(3, n, dtype=torch.float64) for n in (5, 4, 4))
    pre = F.linear(x, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh)
    for mine, theirs in zip(kernels.lstm_gates(pre[..., None, None], c[..., None, None]), cell(x, (h, c)), strict=True):
        torch.testing.assert_close(mine[..., 0, 0], theirs)


def test_a_first_step_is_a_step_from_zero():
    x, weight, bias = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, 6, 5), (16, 7, 3, 3), (16,)))
    zero = torch.zeros(2, 4, 6, 5, dtype=torch.float64)
    for first, usual in zip(
        kernels.conv_lstm(x, None, None, weight, bias), kernels.conv_lstm(x, zero, zero, weight, bias), strict=True
    ):
        torch.testing.assert_close(first, usual)


def test_conv_lstm_is_four_convolutions_and_the_equations():
    x, h, c = (torch.randn(2, n, 6, 5, dtype=torch.float64) for n in (3, 4, 4))
    weight, bias = torch.randn(16, 7, 3, 3, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    i, f, g, o = (
        F.conv2d(torch.cat([x, h], 1), w, b, padding=1) for w, b in zip(weight.split(4), bias.split(4), strict=True)
    )
    cell = f.sigmoid() * c + i.sigmoid() * g.tanh()
    found = kernels.conv_lstm(x, h, c, weight, bias)
    torch.testing.assert_close(found, (o.sigmoid() * cell.tanh(), cell))


def test_peepholes_are_the_published_equations():
    """Shi et al. 2015: i and f look at the old cell, o at the new one."""
    pre, c, p = (torch.randn(s, dtype=torch.float64) for s in ((2, 16, 3, 3), (2, 4, 3, 3), (3, 4, 3, 3)))
    i, f, g, o = pre.chunk(4, 1)
    cell = (f + p[1] * c).sigmoid() * c + (i + p[0] * c).sigmoid() * g.tanh()
    torch.testing.assert_close(kernels.lstm_gates(pre, c, p), ((o + p[2] * cell).sigmoid() * cell.tanh(), cell))


@pytest.mark.parametrize("order", ["ifog", "igfo", "oifg"])
def test_gate_permutation_brings_any_order_to_ours(order):
    named = {gate: torch.randn(1, 3, 2, 2) for gate in "ifgo"}
    theirs = torch.cat([named[gate] for gate in order], 1)
    ours = theirs[:, kernels.gate_permutation(order, 3)]
    assert torch.equal(ours, torch.cat([named[gate] for gate in "ifgo"], 1))
    assert torch.equal(ours[:, kernels.gate_permutation(order, 3).argsort()], theirs)
    with pytest.raises(ValueError, match="order must hold"):
        kernels.gate_permutation("iiff", 3)


def test_conv_gru_with_the_reset_after_is_the_gru_cell():
    """On 1 x 1 images, with its matrices as the convolution, this is torch.nn.GRUCell (order r, z, n)."""
    cell = torch.nn.GRUCell(5, 4).double()
    x, h = (torch.randn(3, n, dtype=torch.float64) for n in (5, 4))
    weight = torch.cat([cell.weight_ih, cell.weight_hh], 1)[..., None, None]
    z_r = [*range(4, 8), *range(4)]
    keywords = dict(hidden_bias=cell.bias_hh[8:], reset="after", z_keeps=True)
    terms = weight[z_r], (cell.bias_ih + cell.bias_hh)[z_r], weight[8:], cell.bias_ih[8:]
    for state in (h, None):
        found = kernels.conv_gru(x[..., None, None], None if state is None else h[..., None, None], *terms, **keywords)
        torch.testing.assert_close(found[..., 0, 0], cell(x, state))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 1)])
@pytest.mark.parametrize(("activation", "z_keeps"), [("tanh", False), ("relu", True)])
def test_conv_gru_is_three_convolutions_and_the_equations(kernel, activation, z_keeps):
    x, h = (torch.randn(2, n, 6, 5, dtype=torch.float64) for n in (3, 4))
    gates, candidate = (torch.randn(n, 7, *kernel, dtype=torch.float64) for n in (8, 4))
    bias, candidate_bias = (torch.randn(n, dtype=torch.float64) for n in (8, 4))
    z, r = (
        F.conv2d(torch.cat([x, h], 1), w, b, padding="same").sigmoid()
        for w, b in zip(gates.split(4), bias.split(4), strict=True)
    )
    q = getattr(torch, activation)(F.conv2d(torch.cat([x, r * h], 1), candidate, candidate_bias, padding="same"))
    found = kernels.conv_gru(x, h, gates, bias, candidate, candidate_bias, activation=activation, z_keeps=z_keeps)
    torch.testing.assert_close(found, z * h + (1 - z) * q if z_keeps else (1 - z) * h + z * q)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_conv_gru_from_no_state_is_a_step_from_zero(reset):
    x, gates, bias, candidate = (
        torch.randn(s, dtype=torch.float64) for s in ((2, 3, 6, 5), (8, 7, 3, 3), (8,), (4, 7, 3, 3))
    )
    zero = torch.zeros(2, 4, 6, 5, dtype=torch.float64)
    first, usual = (kernels.conv_gru(x, h, gates, bias, candidate, None, reset=reset) for h in (None, zero))
    torch.testing.assert_close(first, usual)


def test_conv_gru_names_what_is_wrong():
    def step(x=(2, 3, 5, 5), h=(2, 4, 5, 5), gates=(8, 7, 3, 3), candidate=(4, 7, 3, 3), **keywords):
        x, h, gates, candidate = (torch.zeros(size) for size in (x, h, gates, candidate))
        return kernels.conv_gru(x, h, gates, None, candidate, None, **keywords)

    for message, wrong in {
        r"candidate_weight must have 2 \+ 4": dict(x=(2, 2, 5, 5)),
        "candidate_weight must have odd": dict(candidate=(4, 7, 3, 2)),
        r"gates_weight must have shape \(8, 7, 3, 3\)": dict(gates=(8, 7, 1, 5)),
        r"h must have shape \(2, 4, 5, 5\)": dict(h=(2, 4, 5, 4)),
        "x must have 4 dim": dict(x=(3, 5, 5)),
        "reset must be before or after": dict(reset="never"),
        "hidden_bias goes with": dict(hidden_bias=torch.zeros(4)),
    }.items():
        with pytest.raises(ValueError, match=message):
            step(**wrong)


def test_packed_weights_keep_every_number_in_its_place():
    """32 channels of h and 5 of x: the columns as kernels/conv_lstm/packing.py gives them."""
    weight = torch.randn(128, 37, 3, 3)
    step, first_io, first_g = parts(kernels.prepare_conv_lstm(weight).packed, weight)
    assert (step.shape, first_io.shape, first_g.shape) == ((9 * 37, 128), (9 * 5, 64), (9 * 5, 32))
    for gate, channel, source, tap in ((0, 0, 0, 0), (1, 17, 4, 7), (2, 31, 3, 8), (3, 15, 36, 5), (3, 16, 2, 4)):
        number = weight[gate * 32 + channel, source, tap // 3, tap % 3]
        a, b = gate % 2, gate // 2
        assert step[tap * 37 + source, 64 * (channel // 16) + 32 * a + 2 * (channel % 16) + b] == number
        if source < 5 and gate in (0, 3):
            assert first_io[tap * 5 + source, 2 * channel + (gate == 3)] == number
        if source < 5 and gate == 2:
            assert first_g[tap * 5 + source, channel] == number


def test_a_prepared_weight_stays_what_it_was_when_the_parameters_change():
    weight, bias = torch.randn(64, 20, 3, 3), torch.randn(64)
    prepared = kernels.prepare_conv_lstm(weight, bias)
    before = prepared.weight.clone(), prepared.bias.clone(), prepared.packed.clone()
    weight.zero_()
    bias.zero_()
    assert all(torch.equal(now, then) for now, then in zip(prepared, before, strict=True))


def test_a_number_of_channels_that_no_kernel_takes_is_not_packed():
    weight, x, state = torch.randn(20, 8, 3, 3), torch.randn(1, 3, 4, 4), torch.randn(2, 1, 5, 4, 4).unbind()
    prepared = kernels.prepare_conv_lstm(weight)
    assert prepared.packed is None
    for mine, plain in zip(kernels.conv_lstm(x, *state, prepared), kernels.conv_lstm(x, *state, weight), strict=True):
        assert torch.equal(mine, plain)


def test_memory_read_by_its_definition():
    query, items = torch.randn(6, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    read, weights = kernels.memory_read(query, items, return_weights=True)
    for k in range(6):
        scores = [torch.dot(items[m], query[k]) / (items[m].norm() * query[k].norm()) for m in range(4)]
        alpha = torch.stack(scores).softmax(0)
        torch.testing.assert_close(weights[k], alpha)
        torch.testing.assert_close(read[k], sum(a * item for a, item in zip(alpha, items, strict=True)))


def test_memory_update_by_its_definition():
    query, items = torch.randn(9, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    before = items.clone()
    scores = F.cosine_similarity(query[:, None], items[None], dim=2)  # [N, M]
    beta = scores.exp() / scores.exp().sum(0)
    soft = F.normalize(items + torch.einsum("nm,nc->mc", beta, query), dim=1)
    torch.testing.assert_close(kernels.memory_update(query, items), soft)

    hard = items.clone()
    for n in range(9):
        m = int(scores[n].argmax())
        hard[m] += beta[n, m] / beta[:, m].max() * query[n]
    torch.testing.assert_close(kernels.memory_update(query, items, rule="hard"), F.normalize(hard, dim=1))
    assert torch.equal(items, before)


def test_a_query_of_zeros_reads_the_mean_item():
    items = torch.randn(4, 5)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        read = kernels.memory_read(torch.zeros(2, 5, dtype=dtype), items.to(dtype))
        torch.testing.assert_close(read[0], items.to(dtype).float().mean(0).to(dtype))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_box_pyramid_is_the_mean_of_what_is_inside(factor):
    x = torch.rand(1, 2, 11, 9, dtype=torch.float64)
    (level,) = kernels.gaussian_pyramid(x, factors=(factor,))
    for row in range(level.shape[2]):
        for column in range(level.shape[3]):
            window = x[..., row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            torch.testing.assert_close(level[..., row, column], window.mean((2, 3)))


@pytest.mark.parametrize("size", [(13, 17), (1, 1), (2, 9), (64, 33)])
def test_binomial_pyramid_is_pyrdown(size):
    cv2 = pytest.importorskip("cv2")
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    expected = x[0, 0].numpy()
    for level in kernels.gaussian_pyramid(x, kernel="binomial", levels=3):
        expected = cv2.pyrDown(expected).reshape(level.shape[2:])
        torch.testing.assert_close(level[0, 0], torch.from_numpy(expected))


def test_pyramid_holds_the_reduced_levels_only():
    x = torch.rand(1, 3, 32, 48)
    assert [t.shape[2:] for t in kernels.gaussian_pyramid(x)] == [(16, 24), (8, 12)]
    assert [t.shape[2:] for t in kernels.gaussian_pyramid(x, kernel="binomial", levels=3)] == [
        (16, 24),
        (8, 12),
        (4, 6),
    ]


@pytest.mark.parametrize("window", ["same", "valid"])
def test_ssim_with_the_whole_window_at_once(window):
    """With the 11 x 11 window in two dimensions, by the definition of a weighted variance."""
    x, y = torch.rand(2, 3, 15, 13, dtype=torch.float64), torch.rand(2, 3, 15, 13, dtype=torch.float64)
    ramp = torch.arange(11, dtype=torch.float64) - 5
    weights = torch.exp(-(ramp[:, None] ** 2 + ramp**2) / (2 * 1.5**2))
    weights = weights / weights.sum()
    padding = 5 if window == "same" else 0

    def patches(image):
        return F.unfold(image.reshape(6, 1, 15, 13), 11, padding=padding).unflatten(1, (121,))

    a, b, w = patches(x), patches(y), weights.reshape(1, 121, 1)
    mean_a, mean_b = (w * a).sum(1, keepdim=True), (w * b).sum(1, keepdim=True)
    var_a, var_b = (w * (a - mean_a) ** 2).sum(1), (w * (b - mean_b) ** 2).sum(1)
    covariance = (w * (a - mean_a) * (b - mean_b)).sum(1)
    mean_a, mean_b = mean_a[:, 0], mean_b[:, 0]
    expected = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    expected = expected / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
    torch.testing.assert_close(kernels.ssim(x, y, window=window), expected.mean())
    assert kernels.ssim(x, x, window=window) == pytest.approx(1.0)


def test_nv12_as_opencv_converts_it():
    """OpenCV's fixed-point BT.601 conversion, to within one level of 255."""
    cv2 = pytest.importorskip("cv2")
    frame = torch.randint(16, 236, (12, 6), dtype=torch.uint8).numpy()
    expected = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)
    found = kernels.tensor_to_frame(kernels.frame_to_tensor(frame, format="nv12-bt601")).numpy()
    assert abs(found.astype(int) - expected.astype(int)).max() <= 1
