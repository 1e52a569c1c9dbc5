"""Every op with inputs to try it on: what the tests are generated from, and what the benchmarks check first.

The inputs are made in float64; `Sample.at(dtype, device, layout)` rounds and lays them out. An implementation is right
when `assert_as_accurate` says so: its error against the float64 reference on the same rounded inputs may be twice that
of the plain PyTorch reference in the same dtype, plus one unit in the last place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from unrain import kernels

HALF = (torch.float16, torch.bfloat16)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
IMAGE_LAYOUTS = ("nchw", "nhwc", "strided")
MATRIX_LAYOUTS = ("rows", "strided")


@dataclass(frozen=True)
class Sample:
    """One call. Tensors of `args` are float64 (or uint8); those in `keep` are float32 at least, whatever the dtype."""

    name: str
    args: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)
    keep: tuple[int, ...] = ()
    gradient: bool = True

    def at(self, dtype: torch.dtype, device: str = "cpu", layout: str = "nchw") -> tuple[Any, ...]:
        def place(index: int, value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if value.is_floating_point():
                value = value.to(torch.float32 if index in self.keep and dtype in HALF else dtype)
            return lay_out(value.to(device), layout)

        return tuple(place(index, value) for index, value in enumerate(self.args))


def lay_out(value: torch.Tensor, layout: str) -> torch.Tensor:
    if layout == "nhwc" and value.dim() == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    if layout == "strided" and value.dim() > 1:
        wide = torch.zeros((*value.shape[:-1], 2 * value.shape[-1] + 1), dtype=value.dtype, device=value.device)
        wide[..., 1::2] = value
        return wide[..., 1::2]
    return value.contiguous()


@dataclass(frozen=True)
class WrongUse:
    """A call that must be refused with an error that names the argument."""

    name: str
    call: Callable[[], Any]
    error: type[Exception]
    match: str


@dataclass(frozen=True)
class Op:
    name: str
    function: Callable[..., Any]
    samples: list[Sample]
    wrong: list[WrongUse]
    dtypes: tuple[torch.dtype, ...] = FLOATS
    layouts: tuple[str, ...] = IMAGE_LAYOUTS
    keeps_layout: bool = True  # outputs that are images have the memory format of the first image argument
    exact: Callable[..., Any] | None = None  # the float64 answer where the op itself has no float64
    room: float = 2.0  # times the plain reference's error
    gradient_room: float = 2.0
    spreads: bool = False  # what is not finite also reaches neighbours, as NaN

    @property
    def differentiable(self) -> bool:
        return any(sample.gradient for sample in self.samples)


def _random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator) * scale


def _picture(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


def _bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


def _huge(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """More than 2**31 elements in four bytes."""
    return torch.zeros((), dtype=dtype).expand(shape)


SIZES = ((1, 1, 1), (2, 7, 5), (0, 4, 4), (1, 17, 33))  # batch, height, width


# lstm_gates


def _lstm_gates() -> Op:
    def sample(batch, height, width, channels=3, state=True, peephole=None, keep=()):
        pre = _random(batch, (4 if state else 3) * channels, height, width, scale=2.0)
        c = _random(batch, channels, height, width, seed=1) if state else None
        p = {None: None, "full": (height, width), "channel": (1, 1)}[peephole]
        p = None if p is None else _random(3, channels, *p, seed=2)
        name = f"{batch}x{channels}x{height}x{width}{'' if state else '-first'}{'-' + peephole if peephole else ''}"
        return Sample(name + ("-mixed" if keep else ""), (pre, c, p), keep=keep)

    def good():
        return torch.zeros(2, 8, 3, 3), torch.zeros(2, 2, 3, 3)

    samples = [sample(*size) for size in SIZES]
    samples += [sample(2, 7, 5, channels=c) for c in (1, 16, 33)]
    samples += [sample(2, 7, 5, state=False), sample(1, 1, 1, state=False), sample(2, 7, 5, channels=16, keep=(1,))]
    samples += [sample(2, 7, 5, state=s, peephole=p) for s in (True, False) for p in ("full", "channel")]
    wrong = [
        WrongUse(
            "channels", lambda: kernels.lstm_gates(torch.zeros(2, 6, 3, 3), good()[1]), ValueError, "pre.*4 gates"
        ),
        WrongUse("c shape", lambda: kernels.lstm_gates(good()[0], torch.zeros(2, 2, 3, 4)), ValueError, "^c must"),
        WrongUse("c dtype", lambda: kernels.lstm_gates(good()[0], good()[1].double()), TypeError, "^c must"),
        WrongUse("c device", lambda: kernels.lstm_gates(good()[0], good()[1].to("meta")), ValueError, "c is on meta"),
        WrongUse("not a tensor", lambda: kernels.lstm_gates([1.0], good()[1]), TypeError, "pre must be a tensor"),
        WrongUse("integer", lambda: kernels.lstm_gates(good()[0].long(), good()[1]), TypeError, "pre must be a float"),
        WrongUse("dimensions", lambda: kernels.lstm_gates(good()[0][0], good()[1]), ValueError, "pre must have 4 dim"),
        WrongUse("peephole", lambda: kernels.lstm_gates(*good(), torch.zeros(3, 2, 3, 1)), ValueError, "peephole must"),
        WrongUse(
            "too large",
            lambda: kernels.lstm_gates(_huge(2, 4, 2**15, 2**14), _huge(2, 1, 2**15, 2**14)),
            ValueError,
            "pre has .* elements",
        ),
    ]
    return Op("lstm_gates", kernels.lstm_gates, samples, wrong)


# conv_lstm


def _conv_lstm() -> Op:
    def sample(batch, height, width, inputs=3, channels=4, state=True, bias=True, keep=()):
        x = _random(batch, inputs, height, width)
        h, c = (_random(batch, channels, height, width, seed=s) if state else None for s in (1, 2))
        weight = _random(4 * channels, inputs + channels, 3, 3, seed=3, scale=0.3)
        args = (x, h, c, weight, _random(4 * channels, seed=4) if bias else None)
        name = f"{batch}x{inputs}+{channels}x{height}x{width}{'' if state else '-first'}{'' if bias else '-nobias'}"
        return Sample(name + ("-mixed" if keep else ""), args, keep=keep)

    def good(**changes):
        args = dict(x=torch.zeros(2, 3, 5, 5), h=torch.zeros(2, 4, 5, 5), c=torch.zeros(2, 4, 5, 5))
        args |= dict(weight=torch.zeros(16, 7, 3, 3), bias=torch.zeros(16)) | changes
        return lambda: kernels.conv_lstm(**args)

    samples = [sample(*size) for size in SIZES]
    samples += [sample(2, 7, 5, inputs=16, channels=16), sample(1, 9, 6, inputs=32, channels=32)]
    samples += [sample(2, 7, 5, state=False), sample(1, 1, 1, state=False), sample(2, 7, 5, bias=False)]
    samples += [sample(1, 9, 6, inputs=32, channels=32, state=False, bias=False)]
    samples += [sample(1, 17, 33, inputs=16, channels=16, keep=(2,))]  # enough pixels that one rounding does not decide
    wrong = [
        WrongUse("rows", good(weight=torch.zeros(18, 7, 3, 3)), ValueError, "weight has 18 rows"),
        WrongUse("5x5", good(weight=torch.zeros(16, 7, 5, 5)), ValueError, "weight must be"),
        WrongUse("inputs", good(x=torch.zeros(2, 2, 5, 5)), ValueError, "weight must have"),
        WrongUse("bias", good(bias=torch.zeros(15)), ValueError, "bias must have 16"),
        WrongUse("h alone", good(c=None), ValueError, "h and c"),
        WrongUse("h shape", good(h=torch.zeros(2, 4, 5, 4)), ValueError, "^h must"),
        WrongUse("h dtype", good(h=torch.zeros(2, 4, 5, 5).half()), TypeError, "^h has"),
        WrongUse("weight dtype", good(weight=torch.zeros(16, 7, 3, 3).double(), bias=None), TypeError, "^weight has"),
        WrongUse("too large", good(x=_huge(2, 3, 2**15, 2**15), h=None, c=None), ValueError, "x has .* elements"),
    ]
    return Op("conv_lstm", kernels.conv_lstm, samples, wrong)


# gru_gates


def _gru_gates() -> Op:
    def sample(batch, height, width, channels=3, state=True, after=False, keep=(), **keywords):
        shape = (batch, channels, height, width)
        z, candidate, r = (_random(*shape, seed=s, scale=2.0) for s in range(3))
        h = _random(*shape, seed=3) if state else None
        args = (z, candidate, h, *((r, _random(*shape, seed=4)) if after else (None, None)))
        text = "-".join(f"{value}" for value in keywords.values())
        name = f"{batch}x{channels}x{height}x{width}{'' if state else '-first'}{'-after' if after else ''}-{text}"
        return Sample(name + ("-mixed" if keep else ""), args, keywords, keep)

    def good(**changes):
        args = dict(z=torch.zeros(2, 3, 5, 5), candidate=torch.zeros(2, 3, 5, 5), h=torch.zeros(2, 3, 5, 5)) | changes
        return lambda: kernels.gru_gates(**args)

    samples = [sample(*size) for size in SIZES]
    samples += [sample(2, 7, 5, channels=c, after=True, z_keeps=True) for c in (1, 16, 33)]
    samples += [sample(1, 1, 1, state=False), sample(2, 7, 5, state=False, activation="none")]
    samples += [sample(2, 7, 5, after=True, state=s, activation=a) for s in (True, False) for a in ("relu", "tanh")]
    samples += [sample(1, 17, 33, z_keeps=True, activation="relu"), sample(2, 7, 5, state=False, z_keeps=True)]
    samples += [sample(2, 7, 5, channels=16, keep=(2,)), sample(1, 17, 33, after=True, keep=(2,), z_keeps=True)]
    wrong = [
        WrongUse("candidate", good(candidate=torch.zeros(2, 3, 5, 4)), ValueError, "candidate must have the shape"),
        WrongUse("no candidate", good(candidate=None), TypeError, "candidate must be a tensor"),
        WrongUse("r alone", good(r=torch.zeros(2, 3, 5, 5)), ValueError, "r and hidden"),
        WrongUse("h dtype", good(h=torch.zeros(2, 3, 5, 5).double()), TypeError, "^h must"),
        WrongUse("h device", good(h=torch.zeros(2, 3, 5, 5, device="meta")), ValueError, "h is on meta"),
        WrongUse("dtypes", good(candidate=torch.zeros(2, 3, 5, 5).half()), TypeError, "candidate has dtype"),
        WrongUse("activation", good(activation="gelu"), ValueError, "activation must be one of"),
        WrongUse("integer", good(z=torch.zeros(2, 3, 5, 5).int()), TypeError, "z must be a float"),
        WrongUse("dimensions", good(z=torch.zeros(3, 5, 5)), ValueError, "z must have 4 dim"),
        WrongUse("too large", good(z=_huge(2, 1, 2**15, 2**15)), ValueError, "z has .* elements"),
    ]
    return Op("gru_gates", kernels.gru_gates, samples, wrong)


# conv3x3


def _conv3x3() -> Op:
    def sample(batch, height, width, inputs=16, outputs=16, bias=True, add=False, **keywords):
        x = _random(batch, inputs, height, width)
        weight = _random(outputs, inputs, 3, 3, seed=1, scale=(9 * inputs) ** -0.5)
        args = (x, weight, _random(outputs, seed=2) if bias else None)
        args += (_random(batch, outputs, height, width, seed=3) if add else None,)
        text = "-".join(f"{name}={value}" for name, value in keywords.items())
        return Sample(f"{batch}x{inputs}x{height}x{width}-{outputs}{'-add' if add else ''}-{text}", args, keywords)

    def good(**changes):
        args = dict(x=torch.zeros(2, 16, 5, 5), weight=torch.zeros(8, 16, 3, 3), bias=torch.zeros(8)) | changes
        return lambda: kernels.conv3x3(**args)

    samples = [sample(*size) for size in SIZES]
    samples += [sample(2, 7, 5, inputs=i, outputs=o) for i, o in ((3, 8), (20, 3), (48, 40))]
    samples += [sample(2, 7, 5, bias=False, relu=True), sample(1, 17, 33, inputs=32, outputs=32, add=True)]
    samples += [sample(1, 17, 33, inputs=32, outputs=32, add=True, relu=True, relu_sum=True)]
    samples += [sample(1, 17, 33, dilation=2), sample(2, 7, 5, dilation=8, add=True, relu_sum=True)]
    wrong = [
        WrongUse("5x5", good(weight=torch.zeros(8, 16, 5, 5)), ValueError, "weight must be"),
        WrongUse("inputs", good(x=torch.zeros(2, 15, 5, 5)), ValueError, "weight must have 15"),
        WrongUse("bias", good(bias=torch.zeros(7)), ValueError, "bias must have 8"),
        WrongUse("add", good(add=torch.zeros(2, 8, 5, 4)), ValueError, "add must have shape"),
        WrongUse("dilation", good(dilation=0), ValueError, "dilation must be"),
        WrongUse("weight dtype", good(weight=torch.zeros(8, 16, 3, 3).double()), TypeError, "^weight has"),
        WrongUse("integer", good(x=torch.zeros(2, 16, 5, 5).int()), TypeError, "x must be a float"),
        WrongUse("too large", good(x=_huge(2, 16, 2**14, 2**14)), ValueError, "x has .* elements"),
    ]
    return Op("conv3x3", kernels.conv3x3, samples, wrong, room=6.0, gradient_room=12.0, spreads=True)


# charbonnier


def _charbonnier() -> Op:
    def sample(*shape, eps=1e-3, reduction="mean"):
        pred, target = _picture(*shape), _picture(*shape, seed=1)
        name = f"{'x'.join(map(str, shape))}-{reduction}-{eps}"
        return Sample(name, (pred, target), dict(eps=eps, reduction=reduction))

    samples = [sample(2, 3, 7, 5, reduction=reduction) for reduction in ("mean", "sum", "none")]
    samples += [sample(*shape) for shape in ((1, 1, 1, 1), (2, 3, 67, 129), (13,), (3, 11))]
    samples += [sample(0, 3, 4, 4, reduction=reduction) for reduction in ("sum", "none")]
    samples += [sample(2, 3, 7, 5, eps=eps) for eps in (1e-6, 0.5)]
    a = torch.zeros(2, 3, 4, 4)
    wrong = [
        WrongUse("shapes", lambda: kernels.charbonnier(a, a[:1]), ValueError, "target must have the shape"),
        WrongUse("dtypes", lambda: kernels.charbonnier(a, a.double()), TypeError, "target has dtype"),
        WrongUse("devices", lambda: kernels.charbonnier(a, a.to("meta")), ValueError, "target is on meta"),
        WrongUse("negative eps", lambda: kernels.charbonnier(a, a, eps=-1.0), ValueError, "eps must be positive"),
        WrongUse("nan eps", lambda: kernels.charbonnier(a, a, eps=float("nan")), ValueError, "eps must be positive"),
        WrongUse("reduction", lambda: kernels.charbonnier(a, a, reduction="max"), ValueError, "reduction must be"),
        WrongUse("integer", lambda: kernels.charbonnier(a.int(), a), TypeError, "pred must be a float"),
        WrongUse("large", lambda: kernels.charbonnier(*[_huge(2**31)] * 2), ValueError, "pred has .* elements"),
    ]
    return Op("charbonnier", kernels.charbonnier, samples, wrong)


# memory


def _memory_samples(**keywords) -> list[Sample]:
    shapes = ((1, 1, 1), (50, 20, 16), (0, 3, 8), (257, 20, 64), (33, 7, 5), (19, 64, 32))
    text = "-".join(f"{value}" for value in keywords.values())
    return [Sample(f"{n}x{m}x{c}-{text}", (_random(n, c), _random(m, c, seed=1)), keywords) for n, m, c in shapes] + [
        Sample(
            f"normalised-{text}", tuple(torch.nn.functional.normalize(_random(n, 8), dim=1) for n in (40, 6)), keywords
        )
    ]


def _memory_wrong(function) -> list[WrongUse]:
    q, m = torch.zeros(5, 8), torch.zeros(3, 8)
    return [
        WrongUse("columns", lambda: function(q, m[:, :4]), ValueError, "items must have 8 columns"),
        WrongUse("no items", lambda: function(q, m[:0]), ValueError, "items must hold"),
        WrongUse("dimensions", lambda: function(q[None], m), ValueError, "query must have 2 dim"),
        WrongUse("dtypes", lambda: function(q, m.double()), TypeError, "items has dtype"),
        WrongUse("devices", lambda: function(q, m.to("meta")), ValueError, "items is on meta"),
        WrongUse("integer", lambda: function(q.long(), m), TypeError, "query must be a float"),
        WrongUse("large", lambda: function(_huge(2**28, 8), m), ValueError, "query has .* elements"),
    ]


def _memory_read() -> Op:
    samples = [s for flag in (False, True) for s in _memory_samples(return_weights=flag)]
    return Op("memory_read", kernels.memory_read, samples, _memory_wrong(kernels.memory_read), layouts=MATRIX_LAYOUTS)


def _memory_update() -> Op:
    samples = [s for rule in ("soft", "hard") for s in _memory_samples(rule=rule)]
    q, m = torch.zeros(5, 8), torch.zeros(3, 8)
    wrong = [WrongUse("rule", lambda: kernels.memory_update(q, m, rule="medium"), ValueError, "rule must be")]
    wrong += _memory_wrong(kernels.memory_update)
    return Op("memory_update", kernels.memory_update, samples, wrong, layouts=MATRIX_LAYOUTS)


# gaussian_pyramid


def _gaussian_pyramid() -> Op:
    def sample(batch, height, width, channels=3, **keywords):
        text = "-".join(f"{value}" for value in keywords.values())
        return Sample(
            f"{batch}x{channels}x{height}x{width}-{text}", (_picture(batch, channels, height, width),), keywords
        )

    kinds = [dict(factors=(2, 4), kernel="box"), dict(factors=(3,), kernel="box"), dict(kernel="binomial", levels=3)]
    samples = [sample(*size, **kind) for size, kind in itertools.product((*SIZES, (1, 2, 3), (1, 32, 48)), kinds)]
    samples += [sample(1, 9, 10, channels=c, **kinds[0]) for c in (1, 5)]
    samples += [sample(1, 9, 10, channels=c, **kinds[2]) for c in (1, 5)]
    x = torch.zeros(1, 3, 8, 8)
    wrong = [
        WrongUse("factor", lambda: kernels.gaussian_pyramid(x, factors=(1,)), ValueError, "factors must"),
        WrongUse("kernel", lambda: kernels.gaussian_pyramid(x, kernel="tent"), ValueError, "kernel must be"),
        WrongUse("levels", lambda: kernels.gaussian_pyramid(x, kernel="binomial", levels=0), ValueError, "levels must"),
        WrongUse("levels of box", lambda: kernels.gaussian_pyramid(x, levels=2), ValueError, "levels goes with"),
        WrongUse("integer", lambda: kernels.gaussian_pyramid(x.int()), TypeError, "x must be a float"),
        WrongUse("numpy", lambda: kernels.gaussian_pyramid(np.zeros((4, 4, 3))), TypeError, "x as a numpy image"),
        WrongUse("empty", lambda: kernels.gaussian_pyramid(x[..., :0]), ValueError, "x must have at least one pixel"),
        WrongUse("large", lambda: kernels.gaussian_pyramid(_huge(2, 1, 2**15, 2**15)), ValueError, "x has .* elements"),
    ]
    return Op("gaussian_pyramid", kernels.gaussian_pyramid, samples, wrong)


# ssim


def _ssim() -> Op:
    def sample(batch, height, width, channels=3, **keywords):
        x = _picture(batch, channels, height, width)
        y = (x + _random(batch, channels, height, width, seed=1, scale=0.1)).clamp(0, 1)
        text = "-".join(f"{value}" for value in keywords.values())
        return Sample(f"{batch}x{channels}x{height}x{width}-{text}", (x, y), keywords)

    samples = [sample(*size, window="same") for size in ((1, 1, 1), (2, 7, 5), (1, 17, 33), (1, 40, 70))]
    samples += [sample(*size, window="valid") for size in ((1, 11, 11), (2, 17, 33))]
    samples += [sample(1, 13, 12, channels=1, window="same"), sample(1, 13, 12, window="same", data_range=2.0)]
    x = torch.zeros(1, 3, 16, 16)
    wrong = [
        WrongUse("shapes", lambda: kernels.ssim(x, x[..., :8]), ValueError, "y must have the shape"),
        WrongUse("dtypes", lambda: kernels.ssim(x, x.double()), TypeError, "y has dtype"),
        WrongUse("devices", lambda: kernels.ssim(x, x.to("meta")), ValueError, "y is on meta"),
        WrongUse("window", lambda: kernels.ssim(x, x, window="full"), ValueError, "window must be"),
        WrongUse(
            "small", lambda: kernels.ssim(x[..., :8], x[..., :8], window="valid"), ValueError, "x must be at least"
        ),
        WrongUse("range", lambda: kernels.ssim(x, x, data_range=0.0), ValueError, "data_range must be"),
        WrongUse("integer", lambda: kernels.ssim(x.byte(), x), TypeError, "x must be a float"),
        WrongUse("large", lambda: kernels.ssim(*[_huge(2, 1, 2**15, 2**15)] * 2), ValueError, "x has .* elements"),
    ]
    return Op("ssim", kernels.ssim, samples, wrong)


# the two frame ops


def exact_frame_to_tensor(frame, multiple=1, format="rgb", **_):
    """In float64 numpy, pixel by pixel definitions, independent of the reference."""
    frame = frame.cpu().numpy().astype(np.float64)
    if format.startswith("nv12"):
        kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[format.split("-")[1]]
        full, height = format.endswith("-full"), frame.shape[1] * 2 // 3
        luma, chroma = frame[:, :height], frame[:, height:]
        u, v = (np.kron(chroma[:, :, start::2], np.ones((1, 2, 2))) - 128 for start in (0, 1))
        luma, scale = (luma / 255, 255) if full else ((luma - 16) / 219, 224)
        red, blue = luma + 2 * (1 - kr) * v / scale, luma + 2 * (1 - kb) * u / scale
        green = luma - (2 * kr * (1 - kr) * v + 2 * kb * (1 - kb) * u) / scale / (1 - kr - kb)
        image = np.clip(np.stack([red, green, blue], 1), 0, 1)
    else:
        image = frame.transpose(0, 3, 1, 2)[:, :: -1 if format == "bgr" else 1] / 255
    below, right = (-side % multiple for side in image.shape[2:])
    return torch.from_numpy(np.pad(image, ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect"))


def exact_tensor_to_frame(x, residual=None, size=None, rounding="nearest", format="rgb"):
    """The sum and the product in float32, as the op promises; the rest in numpy."""
    image = x.float().cpu().numpy()
    if residual is not None:
        image = image + residual.float().cpu().numpy()
    image = np.clip(np.nan_to_num(image * np.float32(255), nan=0.0, posinf=255, neginf=0), 0, 255)
    image = (np.rint if rounding == "nearest" else np.trunc)(image).astype(np.uint8).transpose(0, 2, 3, 1)
    height, width = size or x.shape[2:]
    image = image[:, :height, :width, :: -1 if format == "bgr" else 1].copy()
    return torch.from_numpy(image[0] if len(image) == 1 else image)


def _frame_to_tensor() -> Op:
    def sample(*shape, **keywords):
        text = "-".join(f"{value}" for value in keywords.values())
        return Sample(f"{'x'.join(map(str, shape))}-{text}", (_bytes(*shape),), keywords, gradient=False)

    samples = [sample(2, 7, 5, 3, format=format) for format in ("rgb", "bgr")]
    samples += [sample(1, 1, 1, 3, multiple=4), sample(1, 2, 3, 3, multiple=8), sample(1, 33, 70, 3, multiple=16)]
    samples += [sample(0, 4, 4, 3, multiple=4), sample(1, 7, 5, 3, format="bgr", multiple=8)]
    samples += [sample(2, 9, 8, format=f"nv12-{kind}") for kind in ("bt601", "bt709", "bt601-full", "bt709-full")]
    samples += [sample(0, 6, 4, format="nv12-bt601")]
    samples += [sample(1, 3, 2, format="nv12-bt709", multiple=8), sample(1, 48, 70, format="nv12-bt709", multiple=16)]
    f = np.zeros((6, 4, 3), np.uint8)
    wrong = [
        WrongUse("dtype", lambda: kernels.frame_to_tensor(f.astype(np.float32)), TypeError, "frame must be uint8"),
        WrongUse(
            "tensor dtype", lambda: kernels.frame_to_tensor(torch.zeros(4, 4, 3)), TypeError, "frame must be uint8"
        ),
        WrongUse("list", lambda: kernels.frame_to_tensor([1, 2]), TypeError, "frame must be a numpy array"),
        WrongUse("channels", lambda: kernels.frame_to_tensor(f[..., :2]), ValueError, "frame must have 3 channels"),
        WrongUse("format", lambda: kernels.frame_to_tensor(f, format="yuv"), ValueError, "format must be"),
        WrongUse(
            "nv12", lambda: kernels.frame_to_tensor(f[:5, :, 0], format="nv12-bt601"), ValueError, "frame as NV12"
        ),
        WrongUse("multiple", lambda: kernels.frame_to_tensor(f, multiple=0), ValueError, "multiple must"),
        WrongUse("out dtype", lambda: kernels.frame_to_tensor(f, dtype=torch.int32), TypeError, "dtype must be"),
        WrongUse("out", lambda: kernels.frame_to_tensor(f, out=torch.zeros(1, 3, 6, 5)), ValueError, "out must be"),
        WrongUse("empty", lambda: kernels.frame_to_tensor(f[:0]), ValueError, "frame must have at least one pixel"),
        WrongUse(
            "large",
            lambda: kernels.frame_to_tensor(_huge(2, 2**15, 2**15, 3, dtype=torch.uint8)),
            ValueError,
            "frame has .* elements",
        ),
    ]
    return Op("frame_to_tensor", kernels.frame_to_tensor, samples, wrong, exact=exact_frame_to_tensor)


def _tensor_to_frame() -> Op:
    def sample(batch, height, width, residual=False, **keywords):
        # halves of 1/255 in between, and values out of range, so that rounding and clamping are seen
        x = ((_picture(batch, 3, height, width) * 600 - 40).round() / 510).float().double()
        args = (x, _random(batch, 3, height, width, scale=0.2)) if residual else (x,)
        text = "-".join(f"{value}" for value in keywords.values())
        name = f"{batch}x{height}x{width}{'-residual' if residual else ''}-{text}"
        return Sample(name, args, keywords, gradient=False)

    samples = [sample(*size) for size in SIZES]
    samples += [sample(2, 7, 5, residual=True), sample(2, 7, 5, residual=True, rounding="truncate", format="bgr")]
    samples += [sample(1, 17, 33, size=(15, 30)), sample(2, 8, 8, residual=True, size=(7, 5))]
    x = torch.zeros(1, 3, 8, 8)
    wrong = [
        WrongUse("channels", lambda: kernels.tensor_to_frame(x[:, :2]), ValueError, "x must have 3 channels"),
        WrongUse(
            "residual", lambda: kernels.tensor_to_frame(x, x[..., :4]), ValueError, "residual must have the shape"
        ),
        WrongUse("residual dtype", lambda: kernels.tensor_to_frame(x, x.double()), TypeError, "residual has dtype"),
        WrongUse("size", lambda: kernels.tensor_to_frame(x, size=(9, 8)), ValueError, "size must lie within"),
        WrongUse("rounding", lambda: kernels.tensor_to_frame(x, rounding="up"), ValueError, "rounding must be"),
        WrongUse("format", lambda: kernels.tensor_to_frame(x, format="hsv"), ValueError, "format must be"),
        WrongUse("integer", lambda: kernels.tensor_to_frame(x.byte()), TypeError, "x must be a float"),
        WrongUse("out", lambda: kernels.tensor_to_frame(x, out=torch.zeros(8, 8, 3)), ValueError, "out must be"),
        WrongUse("large", lambda: kernels.tensor_to_frame(_huge(1, 3, 2**15, 2**15)), ValueError, "x has .* elements"),
    ]
    op = Op("tensor_to_frame", kernels.tensor_to_frame, samples, wrong, keeps_layout=False, exact=exact_tensor_to_frame)
    return op


OPS = {
    op.name: op
    for op in (
        _lstm_gates(),
        _conv_lstm(),
        _gru_gates(),
        _conv3x3(),
        _charbonnier(),
        _memory_read(),
        _memory_update(),
        _gaussian_pyramid(),
        _frame_to_tensor(),
        _tensor_to_frame(),
        _ssim(),
    )
}


def run(op: Op, sample: Sample, args: tuple[Any, ...], keywords: dict[str, Any] | None = None):
    """Outputs, and the gradients to every floating argument for a fixed random cotangent of each output."""
    wanted = [a for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()] if sample.gradient else []
    leaves = iter([each.detach().requires_grad_() for each in wanted])
    args = tuple(next(leaves) if any(a is w for w in wanted) else a for a in args)
    found = op.function(*args, **(sample.keywords if keywords is None else keywords))
    outputs = list(found) if isinstance(found, tuple | list) else [found]
    if not sample.gradient:
        return [each.detach() for each in outputs], []
    cotangents = [_random(*out.shape, seed=7).to(out.dtype).to(out.device) for out in outputs]
    inputs = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad]
    return [each.detach() for each in outputs], list(torch.autograd.grad(outputs, inputs, cotangents))


def exact(op: Op, sample: Sample, args: tuple[Any, ...]):
    """The float64 answer to the very same (rounded) inputs."""
    if op.exact is not None:
        return [op.exact(*args, **sample.keywords)], []
    wide = tuple(a.detach().cpu().double() if isinstance(a, torch.Tensor) else a for a in args)
    with kernels.use("reference"):
        return run(op, sample, wide)


def assert_as_accurate(actual, plain, exact, label: str = "", room: float = 2.0) -> None:
    """`actual` errs at most `room` times as much as `plain` does, plus one unit in the last place of each number."""
    __tracebackhide__ = True
    assert actual.shape == exact.shape, f"{label}: shape {tuple(actual.shape)}, not {tuple(exact.shape)}"
    assert actual.dtype == plain.dtype, f"{label}: {actual.dtype}, not {plain.dtype}"
    if not actual.numel():
        return
    if not actual.is_floating_point():
        assert torch.equal(actual.cpu(), exact), f"{label}: {int((actual.cpu() != exact).sum())} values differ"
        return
    limits = torch.finfo(actual.dtype)
    got, usual, true = actual.cpu().double(), plain.cpu().double(), exact.cpu().double()
    finite = true.isfinite() & (true.abs() <= limits.max)
    assert torch.equal(got.isnan(), true.isnan()), f"{label}: NaN in other places"
    assert torch.equal(got[~finite].nan_to_num(), usual[~finite].nan_to_num()), f"{label}: infinities differ"
    if not finite.any():
        return
    got, usual, true = got[finite], usual[finite], true[finite]
    allowed = room * (usual - true).abs().max() + (true.abs() * limits.eps).clamp_min(limits.tiny)
    excess = (got - true).abs() - allowed
    worst = int(excess.argmax())
    error, usual_error, off = (got - true).abs()[worst], (usual - true).abs().max(), int((excess > 0).sum())
    assert excess[worst] <= 0, (
        f"{label}: {got[worst]} for {true[worst]}, an error of {error:.3e} where the plain reference's largest is "
        f"{usual_error:.3e}; {off} of {excess.numel()} values are off"
    )
