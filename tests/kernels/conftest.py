"""Which implementations the kernel tests run, and the poison that shows what an implementation leaves unwritten."""

import os
import sys
import types
from pathlib import Path

import pytest
import torch

from unrain import kernels
from unrain.kernels.registry import BackendUnavailable

sys.path.insert(0, str(Path(__file__).parent))  # for op_db, which the benchmarks share

# (backend, device). Triton's interpreter is chosen when triton is imported, so it has a process of its own:
# `TRITON_INTERPRET=1 pytest tests/kernels -k triton`.
IMPLEMENTATIONS = [("reference", "cpu"), ("native", "cpu"), ("reference", "cuda"), ("triton", "cuda"), ("cuda", "cuda")]
if os.environ.get("TRITON_INTERPRET") == "1":
    IMPLEMENTATIONS.append(("triton", "cpu"))


def pytest_generate_tests(metafunc):
    """A test that asks for `backend` (or `fused`: all but the reference) and `device` runs once per implementation."""
    for name in {"backend", "fused"}.intersection(metafunc.fixturenames):
        values = [
            pytest.param(*each, id="-".join(each), marks=[pytest.mark.gpu] if each[1] == "cuda" else [])
            for each in IMPLEMENTATIONS
            if name == "backend" or each[0] != "reference"
        ]
        metafunc.parametrize((name, "device"), values)


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    """On a GPU the plain reference convolves in float32, not in TF32: the comparison is as strict as on a CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def using():
    """`with using(backend):` runs a backend, and skips the test with its reason where it cannot run this call."""

    class Using:
        def __init__(self, backend: str):
            self.inside = kernels.use(backend)

        def __enter__(self):
            self.inside.__enter__()

        def __exit__(self, kind, error, traceback):
            self.inside.__exit__(None, None, None)
            if isinstance(error, BackendUnavailable):
                pytest.skip(str(error))

    return Using


class _Poisoned(types.ModuleType):
    """torch, but memory that is only allocated holds NaN (or a byte pattern)."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, *args, **keywords):
        return _poison(torch.empty(*args, **keywords))

    def empty_like(self, *args, **keywords):
        return _poison(torch.empty_like(*args, **keywords))

    def empty_strided(self, *args, **keywords):
        return _poison(torch.empty_strided(*args, **keywords))


def _poison(tensor):
    return tensor.fill_(float("nan") if tensor.is_floating_point() else 171 if tensor.dtype == torch.uint8 else -1)


@pytest.fixture
def poisoned(monkeypatch):
    """Everything that unrain.kernels allocates starts as NaN."""
    kernels.info()  # loads every implementation there is
    for name, module in list(sys.modules.items()):
        if name.startswith("unrain.kernels") and getattr(module, "torch", None) is torch:
            monkeypatch.setattr(module, "torch", _Poisoned("torch"))
