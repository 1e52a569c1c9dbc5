"""The C++ implementations beyond test_ops: every SIMD tier, wrong arguments, large pictures, no compiled part."""

import json
import os
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from op_db import OPS, assert_as_accurate, exact, lay_out, run

from unrain import kernels
from unrain.kernels import native
from unrain.kernels.conv_lstm import native as conv_lstm_native
from unrain.kernels.registry import forget

needs_native = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
IN_CPP = [op for op in OPS.values() if op.name != "conv_lstm"]  # that one is PyTorch's convolution and lstm_gates


@needs_native
@pytest.mark.parametrize("tier", native.tiers()[1:])
@pytest.mark.parametrize("op", IN_CPP, ids=lambda op: op.name)
def test_every_tier_is_as_accurate_as_pytorch(op, tier, monkeypatch):
    """The best tier is the one test_ops runs; here are the others this machine can run."""
    monkeypatch.setattr(native, "tier", tier)
    for sample in op.samples:
        for dtype in (torch.float32, torch.bfloat16):
            args, keywords = sample.at(dtype, "cpu", op.layouts[0]), dict(sample.keywords)
            if op.name == "frame_to_tensor":
                keywords["dtype"] = dtype
            with kernels.use("native"):
                found = run(op, sample, args, keywords)
            with kernels.use("reference"):
                plain = run(op, sample, args, keywords)
            true = exact(op, sample, args)
            for part, room in ((0, op.room), (1, op.gradient_room)):
                for index, triple in enumerate(zip(found[part], plain[part], true[part], strict=True)):
                    assert_as_accurate(*triple, label=f"{sample.name} {dtype} {part} {index}", room=room)


@needs_native
def test_wrong_arguments_are_value_errors_that_name_them():
    x = torch.zeros(4)
    good = dict(pred=x, target=x, loss=x, count=4, dtype=torch.float32, eps=0.1, reduction=0)
    native.run("charbonnier", **good)
    for change, message in (
        ({"count": -1}, "count must not be negative"),
        ({"dtype": torch.uint8}, "dtype must be"),
        ({"pred": None}, "pred or target is missing"),
        ({"reduction": 7}, "reduction must be"),
    ):
        with pytest.raises(ValueError, match=f"charbonnier: {message}"):
            native.run("charbonnier", **{**good, **change})
    with pytest.raises(TypeError, match="no field"):
        native.run("charbonnier", **good, extra=1)
    with pytest.raises(ValueError, match="at most 16"):
        native.run("gaussian_pyramid", levels=[0] * 17)


@needs_native
def test_an_unknown_tier_is_refused(monkeypatch):
    monkeypatch.setattr(native, "tier", "sse9")
    with pytest.raises(ValueError, match="tier"):
        native.run("charbonnier", dtype=torch.float32)


@needs_native
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("state", [True, False])
def test_conv_lstm_in_strips_is_conv_lstm(layout, state, monkeypatch):
    """A picture too large to be taken whole gives what the reference gives, batch and odd height included."""
    monkeypatch.setattr(conv_lstm_native, "WHOLE_BYTES", 0)
    monkeypatch.setattr(conv_lstm_native, "STRIP_BYTES", 0)  # 8 rows at a time
    x, h, c = (lay_out(torch.randn(2, channels, 21, 13), layout) for channels in (3, 16, 16))
    weight, bias = torch.randn(64, 19, 3, 3) * 0.2, torch.randn(64)
    args = (x, h, c, weight, bias) if state else (x, None, None, weight, bias)
    with kernels.use("native"):
        found = kernels.conv_lstm(*args)
    with kernels.use("reference"):
        plain = kernels.conv_lstm(*args)
        true = kernels.conv_lstm(*(None if each is None else each.double() for each in args))
    for triple in zip(found, plain, true, strict=True):
        assert_as_accurate(*triple)
        assert triple[0].stride() == triple[1].contiguous(memory_format=_format(layout)).stride()


def _format(layout: str) -> torch.memory_format:
    return torch.channels_last if layout == "nhwc" else torch.contiguous_format


@needs_native
def test_a_large_tensor_gives_the_same_bits_with_one_thread_and_many():
    """Large enough that every op runs in parallel: test_ops does this on small inputs, which stay serial."""
    x, y = torch.rand(2, 3, 300, 400), torch.rand(2, 3, 300, 400)
    q, m = torch.randn(9000, 64), torch.randn(20, 64)
    calls = (
        lambda: [kernels.ssim(x, y), kernels.charbonnier(x, y)],
        lambda: [kernels.memory_read(q, m), kernels.memory_update(q, m), kernels.memory_update(q, m, rule="hard")],
        lambda: kernels.gaussian_pyramid(x, kernel="binomial", levels=3),
        lambda: list(kernels.lstm_gates(torch.cat([x] * 4, 1), y)),
    )

    def everything(count: int) -> list[torch.Tensor]:
        with kernels.use("native"), native_threads(count):
            return [out for call in calls for out in call()]

    once = everything(1)
    for count in (2, 3):
        assert all(torch.equal(a, b) for a, b in zip(once, everything(count), strict=True))


def native_threads(count: int):
    from unrain.kernels.registry import threads

    return threads(count)


def test_the_caller_keeps_its_denormals():
    if not torch.set_flush_denormal(False):
        pytest.skip("this machine cannot flush denormals")
    tiny = torch.full((300_000,), 1e-39)
    with kernels.use("auto"):
        kernels.charbonnier(tiny, torch.zeros_like(tiny))
    assert (tiny * 0.5).max() > 0


def test_without_the_compiled_part_everything_runs_and_says_why():
    program = """
import torch, unrain.kernels as K
pair = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
K.ssim(*pair), K.charbonnier(*pair), K.gaussian_pyramid(pair[0])
print(K.info()["ssim"]["native"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "UNRAIN_NO_NATIVE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "UNRAIN_NO_NATIVE is set"


def test_the_reason_of_the_build_is_passed_on(tmp_path, monkeypatch):
    (tmp_path / "_build_info.json").write_text(json.dumps({"_native": "no C++ compiler", "_native_cuda": None}))
    monkeypatch.setattr(native.resources, "files", lambda package: tmp_path)
    assert native.build_reason("_native") == "no C++ compiler"
    assert native.build_reason("_native_cuda") is None
    (tmp_path / "_build_info.json").unlink()
    assert native.build_reason("_native") == "this is a pure Python install"


@pytest.fixture(autouse=True)
def fresh_decisions():
    yield
    forget()


def test_what_was_made_for_a_call_lives_until_it_has_run(monkeypatch):
    """From Python 3.12 on, what is passed by ** is held by the function's own dictionary alone."""
    made, alive = [], []

    def fields():
        tensor = torch.rand(3)
        made.append(weakref.ref(tensor))
        return {"x": tensor, "count": 3}

    functions = {"probe": lambda *_, **plain: alive.append(made[0]() is not None)}
    monkeypatch.setattr(native, "load", lambda: SimpleNamespace(functions=functions))
    native.run("probe", **fields())
    assert alive == [True]
