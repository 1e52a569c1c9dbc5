"""MSPFN on a CPU.

* Each LSTM is called once, from a zero state: one kernel, without the forget gate and the half of the weights that
  reads the state.
* Joined maps are read where they lie, sums are written where one of their parts was.
* Channel attention works on a few numbers per map: the reference's own modules, in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.mspfn import MSPFN, Scales, box_average, from_network_difference, to_network_range
from ...models.sizing import pad_to_multiple
from ..backends import Runner
from .cells_cpu import LSTM
from .convolution import Arithmetic
from .layers_cpu import Layer, Maps, Plain


class FusedMSPFN(Runner):
    def __init__(self, model: MSPFN, dtype: torch.dtype, products: torch.dtype) -> None:
        arithmetic, maps = Arithmetic(dtype, products), Maps(dtype)
        ffms: Any = model.ffms
        initial: Any = model.initial
        cfm = model.cfm
        units: list[Any] = [
            RecurrentUnit(each, arithmetic, maps) for each in (cfm.rru_quarter, cfm.rru_half, cfm.rru_full)
        ]
        self.multiple, self.maps = model.multiple, maps
        self.initial = [Plain(each, dtype) for each in initial]
        self.cfm = Fusion(cfm, units, arithmetic, maps)
        self.ffms = []
        for ffm in ffms:
            units = [Attention(each, arithmetic, maps) for each in (ffm.urab_quarter, ffm.urab_half, ffm.urab_full)]
            self.ffms.append(Fusion(ffm, units, arithmetic, maps))
        self.rm = Reconstruction(model.rm, arithmetic, maps)

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        padded, crop = pad_to_multiple(x, self.multiple)
        self.maps.begin(padded)
        image = to_network_range(padded)
        pyramid = (box_average(image, 4), box_average(image, 2), image)
        shallow = (conv(self.maps.taken(each)) for conv, each in zip(self.initial, pyramid, strict=True))
        coarse = fine = self.cfm(Scales(*shallow))
        for ffm in self.ffms:
            fine = ffm(fine)
        return x - crop(from_network_difference(self.rm(fine, coarse)))


class Fusion:
    """A unit for each scale, from the smallest upwards, fed its feature and what the smaller ones found."""

    def __init__(self, module: Any, units: list[Any], arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        self.quarter, self.half, self.full = units
        self.quarter_to_half, self.quarter_to_full, self.half_to_full = (
            Layer(each, arithmetic) for each in (module.quarter_to_half, module.quarter_to_full, module.half_to_full)
        )

    def __call__(self, x: Scales) -> Scales:
        channels = x.half.shape[1]
        quarter = self.quarter(x.quarter, x.quarter)
        from_quarter = self.quarter_to_half([quarter], self.maps("from quarter", x.half, channels))
        entering = torch.add(from_quarter, x.half, out=self.maps("entering", x.half, channels))
        half = self.half(entering, x.half)
        entering = self.maps("entering", x.full, channels)
        self.quarter_to_full([from_quarter], entering, add=x.full)
        self.half_to_full([half], entering, add=entering)
        return Scales(quarter, half, self.full(entering, x.full))


class RecurrentUnit:
    def __init__(self, unit: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        self.before, self.after = Layer(unit.before, arithmetic), Layer(unit.after, arithmetic)
        self.input, self.state = unit.before[0].out_channels, unit.lstm.state
        self.lstm = LSTM(unit.lstm.gates, [self.input, self.state], arithmetic)

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        z = self.before([x], self.maps("z", x, self.input))
        h, c = self.maps("h", x, self.state), self.maps("c", x, self.state, torch.float32)
        self.lstm([z], None, (h, c))
        return self.after([h], self.maps("coarse", skip, skip.shape[1]), add=skip)


class Attention:
    """A URAB and the sum after it."""

    def __init__(self, urab: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        self.downs = [Plain(each, arithmetic.dtype) for each in urab.downs]
        self.ups = [Layer(each, arithmetic) for each in urab.ups]
        self.units = [
            (Layer(each.body[:2], arithmetic), Layer(each.body[2], arithmetic), each.attention)
            for each in urab.attention
        ]

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        channels, befores = x.shape[1], []
        for down in self.downs:
            x = down(x)
            befores.append(x)
        for first, second, attention in self.units:
            y = first([x], self.maps("inner", x, channels))
            y = second([y], self.maps("body", x, channels))
            x = torch.addcmul(x, y, attention(y.float()).to(y.dtype))
        *lower, last = zip(self.ups, reversed(befores), strict=True)
        for up, before in lower:
            x = up([before, x], self.maps("risen", x, channels, scale=2))
        up, before = last
        # The sum is written where the skip is, unless that is a map of the coarse module, which is needed once more.
        return up([before, x], self.maps("fine", skip, channels), add=skip)


class Reconstruction:
    def __init__(self, rm: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        self.joins = [Layer(each, arithmetic) for each in (rm.join_quarter, rm.join_half, rm.join_full)]
        self.quarter_to_half, self.half_to_full = (
            Layer(each, arithmetic) for each in (rm.quarter_to_half, rm.half_to_full)
        )
        self.fuse, self.to_rain = Layer(rm.fuse, arithmetic), Layer(rm.to_rain, arithmetic)

    def __call__(self, fine: Scales, coarse: Scales) -> Tensor:
        quarter, half, full = (
            join([ours, theirs], self.maps("joined", ours, ours.shape[1]))
            for join, ours, theirs in zip(self.joins, fine, coarse, strict=True)
        )
        channels = half.shape[1]
        risen = self.quarter_to_half([quarter], self.maps("risen", quarter, channels, scale=2))
        risen = self.half_to_full([risen, half], self.maps("risen", half, channels, scale=2))
        tail = self.fuse([full, risen], self.maps("tail", full, self.fuse.packed.kept))
        return self.to_rain([tail], self.maps("rain", tail, 3, torch.float32))
