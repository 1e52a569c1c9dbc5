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
        arithmetic = Arithmetic(dtype, products)
        ffms: Any = model.ffms
        initial: Any = model.initial
        self.multiple, self.maps = model.multiple, Maps(dtype)
        self.initial = [Plain(each, dtype) for each in initial]
        self.cfm = CoarseFusion(model.cfm, arithmetic, self.maps)
        self.ffms = [FineFusion(each, arithmetic, self.maps) for each in ffms]
        self.rm = Reconstruction(model.rm, arithmetic, self.maps)

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


class CoarseFusion:
    def __init__(self, cfm: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.quarter, self.half, self.full = (
            RecurrentUnit(each, arithmetic, maps) for each in (cfm.rru_quarter, cfm.rru_half, cfm.rru_full)
        )
        self.rise = Rise(cfm, arithmetic, maps)

    def __call__(self, shallow: Scales) -> Scales:
        quarter = self.quarter(shallow.quarter, shallow.quarter)
        half = self.half(self.rise.to_half(quarter, shallow.half), shallow.half)
        full = self.full(self.rise.to_full(half, shallow.full), shallow.full)
        return Scales(quarter, half, full)


class Rise:
    """What the smaller scales add to a larger one's feature. First `to_half`, then `to_full`, which goes on from it."""

    def __init__(self, module: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.maps = maps
        self.quarter_to_half, self.quarter_to_full, self.half_to_full = (
            Layer(each, arithmetic) for each in (module.quarter_to_half, module.quarter_to_full, module.half_to_full)
        )

    def to_half(self, quarter: Tensor, feature: Tensor) -> Tensor:
        channels = feature.shape[1]
        self.from_quarter = self.quarter_to_half([quarter], self.maps("from quarter", quarter, channels, scale=2))
        return torch.add(self.from_quarter, feature, out=self.maps("entering", feature, channels))

    def to_full(self, half: Tensor, feature: Tensor) -> Tensor:
        entering = self.maps("entering", feature, feature.shape[1])
        self.quarter_to_full([self.from_quarter], entering, add=feature)
        return self.half_to_full([half], entering, add=entering)


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


class FineFusion:
    def __init__(self, ffm: Any, arithmetic: Arithmetic, maps: Maps) -> None:
        self.quarter, self.half, self.full = (
            Attention(each, arithmetic, maps) for each in (ffm.urab_quarter, ffm.urab_half, ffm.urab_full)
        )
        self.rise = Rise(ffm, arithmetic, maps)

    def __call__(self, x: Scales) -> Scales:
        quarter = self.quarter(x.quarter, x.quarter)
        half = self.half(self.rise.to_half(quarter, x.half), x.half)
        full = self.full(self.rise.to_full(half, x.full), x.full)
        return Scales(quarter, half, full)


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
