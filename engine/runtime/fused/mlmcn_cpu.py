"""MLMCN on a CPU.

* A block's convolutions are our own, its LSTM is one kernel, which leaves the memory out where it is still zero.
* The rainy picture that every block sees is laid out once, as a map of 16 channels, 13 of them zero.
* A block's sum and difference are written where its input was.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.mlmcn import CHANNELS, MEMORY, MLMCN, Subnetwork
from ...models.mspfn import box_average, from_network_difference, to_network_range
from ...models.sizing import pad_to_multiple
from ..backends import Runner
from .cells_cpu import LSTM, Memory
from .convolution import Arithmetic
from .layers_cpu import Layer, Maps, Plain


class FusedMLMCN(Runner):
    def __init__(self, model: MLMCN, dtype: torch.dtype, products: torch.dtype) -> None:
        arithmetic = Arithmetic(dtype, products)
        subnetworks: Any = model.subnetworks
        self.multiple, self.maps = model.multiple, Maps(dtype)
        self.subnetworks = [FusedSubnetwork(each, arithmetic, self.maps) for each in subnetworks]

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        padded, crop = pad_to_multiple(x, self.multiple)
        self.maps.begin(padded)
        image = to_network_range(padded)
        rain = torch.zeros_like(image)
        for subnetwork in self.subnetworks:
            rain += subnetwork(box_average(image, 2**subnetwork.halvings))
        return x - crop(from_network_difference(rain))


class FusedSubnetwork:
    def __init__(self, network: Subnetwork, arithmetic: Arithmetic, maps: Maps) -> None:
        self.halvings, self.maps = network.halvings, maps
        self.initial = Plain(network.initial, arithmetic.dtype)
        blocks: Any = network.blocks
        self.blocks = [Block(each, arithmetic, maps) for each in blocks]
        self.transition = Layer(network.transition, arithmetic)
        self.sub_pixels = [SubPixel(each, arithmetic, maps) for each in network.sub_pixel]
        self.to_rain = Layer(network.to_rain, arithmetic)

    def __call__(self, image: Tensor) -> Tensor:
        picture = self.maps("picture", image, 16).zero_()
        picture[:, :3] = image
        shallow = feature = self.initial(self.maps.taken(image))
        memory: Memory = None
        for number, block in enumerate(self.blocks):
            feature, memory = block(feature, picture, memory, number)
        feature = self.transition([feature, shallow], self.maps("transition", feature, CHANNELS))
        for sub_pixel in self.sub_pixels:
            feature = sub_pixel(feature)
        return self.to_rain([feature], self.maps("rain", feature, 3, torch.float32))


class Block:
    """A memory module, a compensation module, or the one after the other."""

    def __init__(self, block: nn.Module, arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        rmm: Any = getattr(block, "rmm", None)
        bcm: Any = getattr(block, "bcm", None)
        if rmm is not None:
            self.transition = Layer(rmm.transition, arithmetic)
            self.lstm = LSTM(rmm.lstm.gates, [MEMORY, MEMORY], arithmetic)
            self.residual = Layer(rmm.residual, arithmetic)
        if bcm is not None:
            self.down, self.up = Plain(bcm.down, arithmetic.dtype), Layer(bcm.up, arithmetic)
            self.units = [Layer(each, arithmetic) for each in bcm.units]
        self.remembers, self.compensates = rmm is not None, bcm is not None

    def __call__(self, feature: Tensor, picture: Tensor, memory: Memory, number: int) -> tuple[Tensor, Memory]:
        out = self.maps("feature", feature, CHANNELS)  # from the second block on, it is where `feature` is
        if self.remembers:
            memory = self._remember(feature, picture, memory, number)
            feature = self.residual([memory[0]], out, add=feature)
        if self.compensates:
            feature = torch.sub(feature, self._background(feature), out=out)
        return feature, memory

    def _remember(self, feature: Tensor, picture: Tensor, memory: Memory, number: int) -> tuple[Tensor, ...]:
        z = self.transition([feature, picture], self.maps("z", feature, MEMORY))
        h = self.maps(f"h{number % 2}", feature, MEMORY)
        c = self.maps("c", feature, MEMORY, torch.float32)
        self.lstm([z], memory, (h, c))
        return h, c

    def _background(self, estimate: Tensor) -> Tensor:
        before = x = self.down(estimate)
        for number, unit in enumerate(self.units):
            x = unit([x], self.maps(f"unit{number % 2}", x, CHANNELS), add=x)
        return self.up([before, x], self.maps("background", x, CHANNELS, scale=2))


class SubPixel:
    """To 4 x 64 channels, each with the slope that its PReLU has after the rearrangement."""

    def __init__(self, modules: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        conv, _, prelu = modules
        self.layer = Layer(conv, arithmetic, slope=prelu.weight.detach().repeat_interleave(4))
        self.maps = maps

    def __call__(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.layer([x], self.maps("sub-pixel", x, 4 * CHANNELS)), 2)
