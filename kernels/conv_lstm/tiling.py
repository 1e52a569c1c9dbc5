"""Tile sizes of the Triton `conv_lstm` kernels: the defaults, the candidates, and what `tune` found on this machine."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..kept import cache_folder, replacing
from ..registry import Call, is_nhwc


class Tiling(NamedTuple):
    tile_h: int
    tile_w: int
    block_c: int  # channels of a program; 4 times as many columns
    block_k: int  # input channels of one step
    warps: int
    stages: int  # steps in flight

    def constants(self) -> dict[str, int]:
        sizes = {"TILE_H": self.tile_h, "TILE_W": self.tile_w, "BLOCK_C": self.block_c, "BLOCK_K": self.block_k}
        return sizes | {"STAGES": self.stages}


class Measured(NamedTuple):
    """One finding of `tune`: the best tiling, and the time of a step with it and with cuDNN and `lstm_gates`."""

    tiling: Tiling
    microseconds: float
    rival_microseconds: float


# Shared memory above 99 KiB, and large register tiles through wgmma or tensor memory.
DATACENTER = (90, 100)


def default_tiling(
    c_in: int, channels: int, dtype: torch.dtype, nhwc: bool, arch: int, first: bool, backward: bool
) -> Tiling:
    """The largest tile whose accumulators fit the registers of every width, dtype and architecture without spilling.

    A larger tile reads the weights less often. float32 has no tensor core product that is exact enough, so its tile is
    what plain multiply-adds can feed; the epilogue of a backward pass holds twice as many values.
    """
    block_c = 32 if channels % 32 == 0 else 16
    block_k = 32 if c_in % 32 == 0 and channels % 32 == 0 else 16
    if dtype == torch.float32:
        return Tiling(8, 16, 16, 16, 8, 3)
    if not nhwc or backward:
        return Tiling(8, 16, block_c, block_k, 8, 3)
    if arch == 90 or (arch == 100 and first):
        return Tiling(16, 16, block_c, block_k, 8, 4)
    if arch == 100:  # a step's epilogue takes products from tensor memory and state at once: half the tile
        return Tiling(8, 16, block_c, block_k, 8, 4)
    if first or c_in != channels:  # two products, or two loops: a few registers too many for the large tile
        return Tiling(8, 16, block_c, block_k, 8, 4)
    return Tiling(16, 16, block_c, block_k, 8, 3)


def candidates(channels: int, arch: int) -> list[Tiling]:
    """A small set around the default, for half precision in NHWC."""
    shapes = [(16, 16, 8), (16, 16, 16), (8, 32, 8), (8, 16, 8), (8, 16, 4), (4, 32, 8)]
    stages = (2, 3, 4, 5) if arch in DATACENTER or arch in (80, 87) else (2, 3)
    blocks_c = [each for each in (16, 32, 64) if channels % each == 0 and each >= min(channels, 32)]
    blocks_k = [each for each in (16, 32, 64) if channels % each == 0 and each >= min(channels, 32)]
    return [
        Tiling(tile_h, tile_w, block_c, block_k, warps, stage)
        for tile_h, tile_w, warps in shapes
        for block_c in blocks_c
        for block_k in blocks_k
        for stage in stages
        if tile_h * tile_w * block_c <= 256 * 32 and shared_bytes(tile_h * tile_w, block_c, block_k, stage) <= 220_000
    ]


def shared_bytes(pixels: int, block_c: int, block_k: int, stages: int) -> int:
    return 2 * block_k * (pixels + 4 * block_c) * stages


def tiling(x: torch.Tensor, channels: int, *, first: bool, backward: bool = False) -> Tiling:
    if not backward and is_nhwc(x):
        found = findings().get(_key(x.device, x.shape[1], channels, x.dtype, first))
        if found is not None:
            return found.tiling
    return _default(x.device, x.shape[1], channels, x.dtype, is_nhwc(x), first, backward)


@cache
def _default(device, c_in, channels, dtype, nhwc, first, backward) -> Tiling:
    return default_tiling(c_in, channels, dtype, nhwc, architecture(device), first, backward)


def architecture(device: torch.device) -> int:
    """90 for compute capability 9.0; the interpreter counts as the smallest."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def verdict(call: Call) -> str | None:
    """Why "auto" should leave the convolution to cuDNN, or None where `tune` measured that the fused kernel wins."""
    c_in, channels, has_state = call.detail[:3]
    found = findings().get(_key(call.device, c_in, channels, call.dtype, not has_state))
    if found is None or call.layout != "nhwc":
        return "not measured against cuDNN on this GPU: run python -m unrain.kernels.conv_lstm.tune"
    if found.microseconds >= found.rival_microseconds:
        return f"measured {found.microseconds:.0f} us, cuDNN and lstm_gates {found.rival_microseconds:.0f} us"
    return None


def remember(device: torch.device, c_in: int, channels: int, dtype: torch.dtype, first: bool, found: Measured) -> None:
    """Keeps a finding for this process and, in the cache folder, for later ones."""
    findings()[_key(device, c_in, channels, dtype, first)] = found
    with replacing(cache_file()) as part:
        part.write_text(json.dumps(findings(), indent=1))


@cache
def findings() -> dict[str, Measured]:
    """What `tune` found here, read once per process; an unreadable file counts as none."""
    try:
        stored: dict[str, Any] = json.loads(cache_file().read_text())
        return {key: Measured(Tiling(*each[0]), float(each[1]), float(each[2])) for key, each in stored.items()}
    except (OSError, ValueError, TypeError, IndexError, AttributeError):
        return {}


def cache_file() -> Path:
    return cache_folder() / "conv_lstm_triton.json"


def _key(device: torch.device, c_in: int, channels: int, dtype: torch.dtype, first: bool) -> str:
    return f"{_gpu(device)} {c_in} {channels} {dtype} {'first' if first else 'step'}"


@cache
def _gpu(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
