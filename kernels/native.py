"""The way into the compiled parts, the C++ kernels: loaded once, tensors handed over as addresses."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from .compiled import Native, NativeCuda
from .registry import Call, thread_count

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.uint8: 3}  # enum DType in csrc/storage.h
PACKAGE = __package__.rpartition(".")[0]

tier = ""  # a name out of tiers() for every native call; "" is the best this machine has (tests try the others)


@cache
def load() -> Native | str:
    """The compiled CPU part, or why there is none."""
    return _opened("_native", Native)


@cache
def load_cuda() -> NativeCuda | str:
    """The compiled CUDA part, or why there is none."""
    return _opened("_native_cuda", NativeCuda)


def _opened(name: str, opened_as: type[Any]) -> Any:
    if os.environ.get("UNRAIN_NO_NATIVE"):
        return "UNRAIN_NO_NATIVE is set"
    file = library_file(name)
    if not file.exists():
        return build_reason(name) or f"the compiled part is not there: {file}"
    try:
        return opened_as(file)
    except (OSError, AttributeError) as error:
        return f"the compiled part does not load: {error}"


def library_file(name: str) -> Path:
    """Where the build (csrc/build.py) puts a compiled part: in the package, which is never inside an archive."""
    return Path(str(resources.files(PACKAGE))) / f"{name}{'.dll' if sys.platform == 'win32' else '.so'}"


def build_reason(name: str) -> str | None:
    """Why the install left this part out, as the build wrote it down."""
    try:
        written = json.loads(resources.files(PACKAGE).joinpath("_build_info.json").read_text())
    except (OSError, ValueError):
        return "this is a pure Python install"
    return written.get(name, "this is a pure Python install")


def available() -> str | None:
    found = load()
    return found if isinstance(found, str) else None


def tiers() -> list[str]:
    """The SIMD tiers this machine can run, best first; empty without the compiled part."""
    found = load()
    return [] if isinstance(found, str) else found.tiers()


def needs_cpu(call: Call, *dtypes: torch.dtype) -> str | None:
    """The refusal shared by all: another device, or a dtype that is not one of `dtypes`."""
    if call.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {call.device}"
    if call.dtype not in dtypes:
        return f"dtype {call.dtype} is not one of {', '.join(str(each).removeprefix('torch.') for each in dtypes)}"
    return None


def run(op: str, backward: bool = False, **fields: Any) -> None:
    """Calls the kernel with the fields of its struct in csrc/ops.h; tensors become addresses, dtypes their codes."""
    loaded: Any = load()
    # `fields` stays as it is until the kernel has run: it may be all that holds a tensor that was made for this call.
    plain = {name: _plain(value) for name, value in fields.items()}
    loaded.functions[op](backward, tier, threads=thread_count(), **plain)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    return DTYPES[value] if isinstance(value, torch.dtype) else value
