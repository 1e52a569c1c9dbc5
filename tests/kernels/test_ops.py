"""Every implementation of every op against the float64 reference, generated from op_db."""

import pytest
import torch
from op_db import OPS, Op, Sample, assert_as_accurate, exact, run

from unrain import kernels
from unrain.kernels import library
from unrain.kernels.gru_gates import arrange

CASES = [pytest.param(op, sample, id=f"{op.name}-{sample.name}") for op in OPS.values() for sample in op.samples]
DIFFERENTIABLE = [op for op in OPS.values() if op.differentiable]


def inputs(op: Op, sample: Sample, dtype, device, layout):
    """The arguments and keywords of one call; the frame op takes bytes, and dtype and layout as keywords."""
    args, keywords = sample.at(dtype, device, layout), dict(sample.keywords)
    if op.name == "frame_to_tensor":
        keywords |= dict(dtype=dtype, channels_last=layout == "nhwc")
    return args, keywords


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_accuracy(op, sample, dtype, fused, device, using, poisoned):
    """Values and gradients, in every layout, as accurate as plain PyTorch and in the promised memory format."""
    for layout in op.layouts:
        args, keywords = inputs(op, sample, dtype, device, layout)
        with using(fused):
            outputs, gradients = run(op, sample, args, keywords)
        with kernels.use("reference"):
            plain, plain_gradients = run(op, sample, args, keywords)
        true, true_gradients = exact(op, sample, args)
        for index, triple in enumerate(zip(outputs, plain, true, strict=True)):
            assert_as_accurate(*triple, label=f"{layout} output {index}", room=op.room)
        for index, triple in enumerate(zip(gradients, plain_gradients, true_gradients, strict=True)):
            assert_as_accurate(*triple, label=f"{layout} gradient {index}", room=op.gradient_room)
        if op.keeps_layout and layout == "nhwc":
            for output in outputs:
                assert (
                    output.dim() != 4 or not output.numel() or output.is_contiguous(memory_format=torch.channels_last)
                )


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_propagates(op, value, fused, device, using):
    """NaN and infinity are never replaced: the output holds them exactly where plain PyTorch's does."""
    for sample in op.samples:
        args = sample.at(torch.float32, device)
        if not args[0].numel():
            continue
        args[0].view(-1)[args[0].numel() // 2] = value
        with using(fused):
            outputs, _ = run(op, sample, args)
        with kernels.use("reference"):
            plain, _ = run(op, sample, args)
        for mine, theirs in zip(outputs, plain, strict=True):
            if op.spreads:
                assert not (mine.isfinite() & ~theirs.isfinite()).any(), sample.name
                continue
            assert torch.equal(mine.isnan(), theirs.isnan()), sample.name
            assert torch.equal(mine.isinf(), theirs.isinf()), sample.name


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_same_bits_again_and_for_every_thread_count(op, fused, device, using):
    """Deterministic: neither a second run nor the number of threads changes a bit."""
    for sample in op.samples:
        args = sample.at(torch.float32, device)
        results = []
        for count in (1, 2, 2):
            with using(fused), kernels.threads(count):
                outputs, gradients = run(op, sample, args)
            results.append(outputs + gradients)
        for other in results[1:]:
            for mine, theirs in zip(results[0], other, strict=True):
                assert torch.equal(mine, theirs) or bool(mine.isnan().any() and theirs.isnan().any()), sample.name


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_the_op_itself_agrees_with_the_public_function(op):
    """What torch.compile runs on a machine with nothing but the reference: its forward and its written-out backward."""
    for sample in op.samples:
        args, keywords = inputs(op, sample, torch.float32, "cpu", "nhwc" if "nhwc" in op.layouts else "rows")
        with kernels.use("reference"):
            plain, plain_gradients = run(op, sample, args, keywords)
            original = library.takes_plain_path
            try:
                library.takes_plain_path = lambda call: False
                outputs, gradients = run(op, sample, args, keywords)
            finally:
                library.takes_plain_path = original
        true, true_gradients = exact(op, sample, args)
        for triple in zip(outputs + gradients, plain + plain_gradients, true + true_gradients, strict=True):
            assert_as_accurate(*triple, label=sample.name)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_wrong_use_names_the_argument(op):
    for wrong in op.wrong:
        with pytest.raises(wrong.error, match=wrong.match):
            wrong.call()


def test_a_prepared_weight_gives_the_same_step(fused, device, using):
    for sample in OPS["conv_lstm"].samples:
        x, h, c, weight, bias = sample.at(torch.float32, device, "nhwc")
        with using(fused):
            usual = kernels.conv_lstm(x, h, c, weight, bias)
            prepared = kernels.conv_lstm(x, h, c, kernels.prepare_conv_lstm(weight, bias))
        for mine, theirs in zip(prepared, usual, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_gru_gates_reads_halves_of_a_tensor_where_they_lie(form, fused, device, using):
    z, r = torch.randn(2, 8, 7, 5, device=device).to(memory_format=form).chunk(2, 1)
    h = torch.randn(2, 4, 7, 5, device=device).to(memory_format=form)
    op, sample = OPS["gru_gates"], OPS["gru_gates"].samples[0]
    assert arrange(z, h, h, r, h, False, "tanh")[0] is z
    with using(fused):
        found, gradients = run(op, sample, (z, h, h, r, h))
        expected, expected_gradients = run(
            op, sample, tuple(each.clone(memory_format=form) for each in (z, h, h, r, h))
        )
    for mine, theirs in zip(found + gradients, expected + expected_gradients, strict=True):
        assert torch.equal(mine, theirs) and mine.is_contiguous(memory_format=form)


def test_frames_survive_the_way_there_and_back(backend, device, using):
    frame = torch.randint(0, 256, (37, 53, 3), dtype=torch.uint8, device=device)
    with using(backend):
        tensor = kernels.frame_to_tensor(frame, multiple=8)
        assert tensor.shape == (1, 3, 40, 56)
        assert torch.equal(kernels.tensor_to_frame(tensor, size=(37, 53)), frame)


@pytest.mark.parametrize("channels_last", [False, True])
def test_frame_ops_write_where_they_are_told(channels_last, backend, device, using):
    frame = torch.randint(0, 256, (9, 6, 3), dtype=torch.uint8, device=device)
    form = torch.channels_last if channels_last else torch.contiguous_format
    buffer = torch.full((1, 3, 12, 8), -1.0, device=device).contiguous(memory_format=form)
    back = torch.zeros_like(frame)
    with using(backend):
        assert kernels.frame_to_tensor(frame, multiple=4, out=buffer) is buffer
        assert torch.equal(buffer, kernels.frame_to_tensor(frame, multiple=4, channels_last=channels_last))
        assert kernels.tensor_to_frame(buffer, size=(9, 6), out=back) is back
    assert torch.equal(back, frame)


def test_bytes_become_no_nan(backend, device, using):
    """A byte holds neither NaN nor infinity: 0, 255 and 0."""
    x = torch.tensor([float("nan"), float("inf"), float("-inf")], device=device).view(1, 3, 1, 1)
    with using(backend):
        assert kernels.tensor_to_frame(x).flatten().tolist() == [0, 255, 0]


def test_a_negative_view_becomes_the_frame_of_its_values(backend, device, using):
    """A dense tensor whose sign is a mark on it and not in its bytes, as `conj().imag` has."""
    values = torch.rand(1, 3, 5, 4, device=device)
    view, back = torch._neg_view(-values), torch.empty(5, 4, 3, dtype=torch.uint8, device=device)
    assert view.is_neg() and view.is_contiguous()
    with using(backend):
        expected = kernels.tensor_to_frame(values, 0.1 * values)
        assert torch.equal(kernels.tensor_to_frame(view, 0.1 * view), expected)
        kernels.tensor_to_frame(view, torch._neg_view(-0.1 * values), out=back)
    assert torch.equal(back, expected)


@pytest.mark.parametrize("eps", [1e-10, 1e-20, 1e-200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_charbonnier_with_a_tiny_eps_has_a_gradient_where_both_agree(eps, dtype, backend, device, using):
    """The square of such an eps is no number that float32 holds, and the gradient was 0 / 0."""
    target = torch.linspace(0, 1, 40, device=device).to(dtype)
    for reduction in ("mean", "sum", "none"):
        pred = target.clone()
        pred[::2] += 0.5
        pred.requires_grad_()
        with using(backend):
            kernels.charbonnier(pred, target, eps=eps, reduction=reduction).sum().backward()
        slope = torch.tensor([1.0, 0.0] * 20, device=device) / (40 if reduction == "mean" else 1)
        torch.testing.assert_close(pred.grad, slope.to(dtype))


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (33, 64, 3), (5, 6), (9, 9, 1)])
def test_binomial_pyramid_of_bytes_is_pyrdown(shape, backend, device, using):
    cv2 = pytest.importorskip("cv2")
    image = torch.randint(0, 256, shape, dtype=torch.uint8).numpy()
    with using(backend):
        levels = kernels.gaussian_pyramid(image, kernel="binomial", levels=3)
    expected = image
    for level in levels:
        expected = cv2.pyrDown(expected).reshape(level.shape)
        assert (level == expected).all()


def test_box_pyramid_of_bytes_rounds_half_up(backend, device, using):
    image = torch.randint(0, 256, (7, 10, 3), dtype=torch.uint8).numpy()
    with using(backend):
        half, quarter = kernels.gaussian_pyramid(image, factors=(2, 4))
    for factor, level in ((2, half), (4, quarter)):
        for row in range(level.shape[0]):
            for column in range(level.shape[1]):
                window = image[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
                count = window.shape[0] * window.shape[1]
                assert (level[row, column] == (2 * window.astype(int).sum((0, 1)) + count) // (2 * count)).all()
