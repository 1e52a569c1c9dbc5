"""A network for ncnn, converted by pnnx and run by ncnn's own Python package: for the export, and as a rival to time.

ncnn's files are for one size: pnnx folds what depends on it.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UnrainError


class Clamped(nn.Module):
    """For runtimes whose file is the whole of it: the picture within [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).clamp(0, 1)


def convert(network: nn.Module, size: tuple[int, int], folder: Path, half: bool = False) -> tuple[Path, Path]:
    """`network.param` and `network.bin` in that folder; `half`: weights stored in fp16."""
    try:
        import pnnx
    except ImportError as error:
        raise UnrainError("ncnn's files are made by the package pnnx: pip install 'unrain[ncnn]'") from error
    network = Clamped(deepcopy(network).to("cpu", torch.float32)).eval().requires_grad_(False)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of sizes that become constants, which is meant
        traced = torch.jit.trace(network, torch.rand(1, 3, *size), check_trace=False)
    traced.save(str(folder / "network.pt"))
    shape = f"inputshape=[1,3,{size[0]},{size[1]}]f32"
    command = [pnnx.EXEC_PATH, "network.pt", shape, f"fp16={int(half)}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    param, weights = folder / "network.ncnn.param", folder / "network.ncnn.bin"
    if done.returncode or not (param.exists() and weights.exists()):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UnrainError(f"pnnx cannot convert it: {' '.join(last)[:200] or 'it says nothing'}")
    # ncnn's own layers have plain names; what pnnx could not translate keeps the one it came with.
    layers = [line.split()[0] for line in param.read_text().splitlines()[2:] if line.strip()]
    foreign = sorted({layer for layer in layers if "." in layer or ":" in layer})
    if foreign:
        raise UnrainError(f"ncnn has no {', '.join(foreign)}")
    os.replace(param, folder / "network.param")
    os.replace(weights, folder / "network.bin")
    return folder / "network.param", folder / "network.bin"


class Net:
    """A converted network: float32 [1,3,H,W] in [0, 1] to the same, on the CPU."""

    def __init__(self, param: Path, weights: Path, precision: str = "fp32", threads: int | None = None) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise UnrainError("this needs the package ncnn: pip install 'unrain[ncnn]'") from error
        self._ncnn: Any = ncnn
        self._net = net = ncnn.Net()
        net.opt.use_vulkan_compute = False
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = precision == "fp16"
        net.opt.use_bf16_storage = precision == "bf16"
        if threads:
            net.opt.num_threads = threads
        if net.load_param(str(param)) or net.load_model(str(weights)):
            raise UnrainError(f"ncnn cannot load {param}")

    def run(self, picture: np.ndarray) -> np.ndarray:
        extractor = self._net.create_extractor()
        # Named and copied: ncnn's matrix does not keep the array alive that it was made of.
        planes = np.ascontiguousarray(picture[0])
        extractor.input("in0", self._ncnn.Mat(planes).clone())
        failed, out = extractor.extract("out0")
        if failed:
            raise UnrainError("ncnn failed while it ran the network")
        return np.array(out, np.float32)[None]
