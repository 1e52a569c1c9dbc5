"""The registry: who runs, who is refused and why, and that nothing optional is needed."""

import logging
import subprocess
import sys
import threading
import types

import pytest
import torch

from unrain import kernels
from unrain.kernels import registry
from unrain.kernels.registry import BACKENDS, OPS, BackendUnavailable, Call

CALL = Call("lstm_gates", torch.device("cpu"), torch.float32, "nchw", False, (4, True, False, torch.float32))


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a made-up implementation of lstm_gates in place of the native one; returns what it saw."""
    registry.forget()

    def install(**parts):
        module = types.ModuleType("unrain.kernels.lstm_gates.native")
        module.seen = []

        def forward(out, pre, c, peephole):
            module.seen.append((tuple(pre.shape), registry.thread_count()))
            for each in out:
                each.fill_(7.0)

        module.__dict__.update(dict(forward=forward, can_run=lambda call: None) | parts)
        registry._modules["lstm_gates", "native"] = module
        return module

    yield install
    registry.forget()


def _step():
    return kernels.lstm_gates(torch.zeros(2, 16, 3, 3), torch.zeros(2, 4, 3, 3))[0]


def test_auto_takes_the_first_that_can(stand_in):
    module = stand_in(backward=lambda out, *args: None)
    assert bool((_step() == 7).all())
    assert module.seen == [((2, 16, 3, 3), torch.get_num_threads())]
    with kernels.use("reference"):
        assert not bool((_step() == 7).any())


def test_a_refusal_is_logged_once(stand_in, caplog):
    stand_in(can_run=lambda call: "only on Sundays")
    with caplog.at_level(logging.INFO, "unrain.kernels"):
        for _ in range(3):
            assert not bool((_step() == 7).any())
    assert len([record for record in caplog.records if "only on Sundays" in record.message]) == 1


def test_an_explicit_choice_that_cannot_be_met_says_why(stand_in):
    stand_in(can_run=lambda call: "only on Sundays")
    with (
        kernels.use("native"),
        pytest.raises(BackendUnavailable, match=r"lstm_gates.*native.*only on Sundays") as caught,
    ):
        _step()
    assert (caught.value.op, caught.value.backend, caught.value.reason) == ("lstm_gates", "native", "only on Sundays")


def test_what_is_slower_is_taken_only_when_asked(stand_in):
    stand_in(slower=lambda call: "measured at 0.5 times")
    assert not bool((_step() == 7).any())
    with kernels.use("native"):
        assert bool((_step() == 7).all())


def test_without_a_backward_pass_a_gradient_goes_elsewhere(stand_in):
    stand_in()
    pre = torch.zeros(1, 4, 2, 2, requires_grad=True)
    h, c = kernels.lstm_gates(pre, torch.ones(1, 1, 2, 2))
    (h.sum() + c.sum()).backward()
    assert pre.grad is not None and not bool((h == 7).any())
    with torch.no_grad():
        assert bool((kernels.lstm_gates(pre, torch.ones(1, 1, 2, 2))[0] == 7).all())


def test_the_choice_of_the_forward_pass_holds_for_the_backward_pass(stand_in):
    chosen = []

    def backward(out, *args):
        chosen.append(registry.chosen())
        for each in out:
            if each is not None:
                each.zero_()

    stand_in(backward=backward)
    pre = torch.zeros(1, 4, 2, 2, requires_grad=True)
    with kernels.use("native"):
        h, _ = kernels.lstm_gates(pre, torch.ones(1, 1, 2, 2))
    h.sum().backward()
    assert chosen == ["native"]


def test_a_decision_is_made_once_per_kind_of_call(stand_in):
    asked = []
    stand_in(can_run=lambda call: asked.append(call))
    for _ in range(3):
        _step()
    kernels.lstm_gates(torch.zeros(5, 16, 9, 9), torch.zeros(5, 4, 9, 9))  # another size, the same kind
    assert len(asked) == 1
    kernels.lstm_gates(torch.zeros(2, 16, 3, 3).to(memory_format=torch.channels_last), torch.zeros(2, 4, 3, 3))
    assert [call.layout for call in asked] == ["nchw", "nhwc"]


def test_use_holds_for_its_thread_alone():
    seen = []
    with kernels.use("reference"):
        worker = threading.Thread(target=lambda: seen.append(registry.chosen()))
        worker.start()
        worker.join()
        with kernels.use("auto"):
            seen.append(registry.chosen())
        seen.append(registry.chosen())
    assert [*seen, registry.chosen()] == ["auto", "auto", "reference", "auto"]


def test_use_and_threads_refuse_nonsense():
    with pytest.raises(ValueError, match="backend must be"), kernels.use("magic"):
        pass
    for count in (0, -1, 1.5):
        with pytest.raises(ValueError, match="count must be"), kernels.threads(count):
            pass


def test_threads_reach_the_implementation(stand_in):
    module = stand_in()
    with kernels.threads(3):
        _step()
    assert module.seen[-1][1] == 3
    assert registry.thread_count() == torch.get_num_threads()


def test_an_implementation_that_breaks_on_import_is_a_reason(monkeypatch, caplog):
    def broken(name):
        raise OSError("libcuda.so.1: cannot open shared object file")

    registry.forget()
    monkeypatch.setattr(registry, "import_module", broken)
    try:
        assert registry._module("lstm_gates", "triton") == "OSError: libcuda.so.1: cannot open shared object file"
    finally:
        registry.forget()


def test_info_names_every_op_and_backend():
    found = kernels.info()
    assert tuple(found) == OPS
    for op in OPS:
        assert tuple(found[op]) == BACKENDS
        assert found[op]["reference"] == "available"
        assert all(isinstance(state, str) and state for state in found[op].values())


def test_an_explicit_backend_without_this_op_is_refused():
    with kernels.use("triton"), pytest.raises(BackendUnavailable, match=r"gaussian_pyramid.*not implemented"):
        kernels.gaussian_pyramid(torch.rand(1, 3, 8, 8))


BLOCKED = """
import os, sys
os.environ["UNRAIN_NO_NATIVE"] = "1"
for name in ("triton", "cupy", "onnx", "onnxscript", "tensorrt", "tensorrt_rtx"):
    sys.modules[name] = None
import numpy as np, torch, unrain
from unrain import kernels as K
x, h, c = torch.rand(1, 4, 16, 16, requires_grad=True), torch.rand(1, 4, 16, 16), torch.rand(1, 4, 16, 16)
weight = torch.rand(16, 8, 3, 3)
total = sum(t.sum() for t in (*K.lstm_gates(torch.cat([x] * 4, 1), c), *K.conv_lstm(x, h, c, weight)))
total = total + K.charbonnier(x, h) + K.ssim(x, h) + sum(t.sum() for t in K.gaussian_pyramid(x))
rows = x.flatten(2)[0].t()
total = total + K.memory_read(rows, rows[:5]).sum() + K.memory_update(rows, rows[:5]).sum()
total.backward()
assert x.grad.isfinite().all()
frame = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
assert (K.tensor_to_frame(K.frame_to_tensor(frame)).numpy() == frame).all()
assert all(state == "available" for op in K.info().values() for name, state in op.items() if name == "reference")
assert not any(state == "available" for op in K.info().values() for name, state in op.items() if name == "native")
"""


def test_every_op_runs_with_every_optional_part_missing():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
