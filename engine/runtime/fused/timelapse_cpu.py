"""The time-lapse memory network on a CPU: batch normalisation folded away, and no joined maps laid side by side.

Between encoder and decoder, at an eighth of the picture's side, the reference's own code runs in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.sizing import pad_to_multiple
from ...models.timelapse import CHANNELS, MULTIPLE, Timelapse
from ..backends import Runner
from .convolution import Arithmetic
from .layers_cpu import Layer, Maps, Plain


class FusedTimelapse(Runner):
    def __init__(self, model: Timelapse, dtype: torch.dtype, products: torch.dtype) -> None:
        arithmetic = Arithmetic(dtype, products)
        encoder: Any = model.encoder
        decoder: Any = model.decoder
        self.model, self.items, self.maps = model, model.items.detach().clone(), Maps(dtype)
        self.first = Plain(encoder.level1[0], dtype)
        self.second = Layer(encoder.level1[1], arithmetic)
        self.down = [[Layer(each, arithmetic) for each in level] for level in (encoder.level2, encoder.level3)]
        self.lowest = [Layer(each, arithmetic) for each in encoder.level4]
        levels = (decoder.level4, decoder.level3, decoder.level2, decoder.level1)
        self.up = [[Layer(each, arithmetic) for each in level] for level in levels]
        self.rise = [Layer(each, arithmetic) for each in (decoder.up3, decoder.up2, decoder.up1)]
        self.output = Layer(decoder.output, arithmetic)

    @torch.inference_mode()
    def run(self, x: Tensor) -> Tensor:
        padded, crop = pad_to_multiple(x, MULTIPLE)
        self.maps.begin(padded)
        features, skips = self._encode(self.maps.taken(padded.flip(1) * 2 - 1))
        query = self.model.query(F.instance_norm(features))
        streaks = self._decode(query, self.model.read(query, self.items), skips)
        return x - crop(streaks.tanh_().tanh_().flip(1) / 2)

    def _encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The bare features in float32, and the maps that the decoder joins, from the smallest to the largest."""
        y = self.first(picture)
        skips = [self.second([y], self._map("skip", y))]
        for first, second in self.down:
            y = F.max_pool2d(skips[0], 2)
            skips.insert(0, second([first([y], self._map("inner", y))], self._map("skip", y)))
        y = F.max_pool2d(skips[0], 2)
        first, second = self.lowest
        features = second([first([y], self._map("inner", y))], self.maps("features", y, CHANNELS, torch.float32))
        return features, skips

    def _decode(self, query: Tensor, retrieved: Tensor, skips: list[Tensor]) -> Tensor:
        """What the network's two tanh are taken of, in float32."""
        joined = [self.maps.taken(query), self.maps.taken(retrieved)]
        for number, (first, second) in enumerate(self.up):
            y = second([first(joined, self._map("inner", joined[0]))], self._map("outer", joined[0]))
            if number < len(skips):
                joined = [skips[number], self.rise[number]([y], self.maps("risen", y, CHANNELS, scale=2))]
        return self.output([y], self.maps("streaks", y, 3, torch.float32))

    def _map(self, name: str, like: Tensor) -> Tensor:
        return self.maps(name, like, CHANNELS)
